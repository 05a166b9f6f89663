/** A real origin: nginx with a folder of its own and the locations that a test asks for. */

import { mkdirSync } from "node:fs";
import { JsonProcess, Scratch } from "../../support/sally.ts";
import { until } from "../../support/until.ts";

export interface NginxOptions {
  /** `ip netns exec NAME`, for a namespace. */
  readonly wrap?: readonly string[];
  /** Lines of the server block. */
  readonly server?: string;
}

export class Nginx implements AsyncDisposable {
  /** What it serves. */
  readonly root: string;
  /** A unix socket, which connects namespaces too. */
  readonly socket: string;
  readonly #stack: AsyncDisposableStack;

  static async start({ wrap = [], server = "" }: NginxOptions = {}): Promise<Nginx> {
    await using stack = new AsyncDisposableStack();
    const scratch = stack.use(new Scratch());
    const [root, socket, config] = [scratch.join("root"), scratch.join("nginx.sock"), scratch.join("nginx.conf")];
    for (const folder of [root, scratch.join("temporary")]) mkdirSync(folder, { recursive: true });
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
      (kind) => `${kind}_temp_path ${scratch.join("temporary", kind)};`,
    );
    await Bun.write(
      config,
      `daemon off; master_process off; user root; pid ${scratch.join("nginx.pid")}; error_log ${scratch.join("error.log")};
       events { worker_connections 4096; }
       http {
         access_log off; ${temporary.join(" ")}
         default_type application/octet-stream; client_max_body_size 0; keepalive_timeout 60; sendfile on;
         server { listen unix:${socket}; root ${root}; ${server} }
       }`,
    );
    const process = stack.use(new JsonProcess([...wrap, "nginx", "-p", scratch.path, "-c", config]));
    await until("nginx listens", async () => {
      const probe = Bun.spawn(["curl", "-sS", "-o", "/dev/null", "--unix-socket", socket, "http://nginx/"]);
      if (process.hasEnded) throw new Error(`nginx has ended: ${process.stderr}`);
      return (await probe.exited) === 0;
    });
    return new Nginx({ root, socket, stack: stack.move() });
  }

  private constructor(parts: { root: string; socket: string; stack: AsyncDisposableStack }) {
    this.root = parts.root;
    this.socket = parts.socket;
    this.#stack = parts.stack;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}
