/** The one version of the program, as package.json says. */

import packageJson from "../../package.json" with { type: "json" };

export const version: string = packageJson.version;
