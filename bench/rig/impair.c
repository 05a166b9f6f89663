// impair: carries IP packets between two network namespaces and makes the way long, narrow and lossy.
//
//   impair NAMESPACE_A NAMESPACE_B DELAY_US LOSS_PPM RATE_KBIT QUEUE_BYTES SEED
//
// Each namespace gets a TUN device called "wire". A packet that comes out of one is either lost (LOSS_PPM of a million)
// or waits for its turn on a line of RATE_KBIT (0: no limit) behind at most QUEUE_BYTES, travels DELAY_US, and goes into
// the other. Order is kept. Each direction draws its losses from a generator of its own, so what one direction carries
// does not change the fate of the other's packets, and a seed always loses the same ones.
//
// SIGUSR1 cuts the line, SIGUSR2 mends it, SIGTERM ends the program, and so does the end of its parent. It prints one
// JSON line when both devices exist and one with counters at the end.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 16384u // a power of two; with 1500-byte packets, 24 MB on the way in each direction
#define PACKET_BYTES 1600

struct packet {
  uint64_t arrives_ns;
  uint32_t length;
  unsigned char bytes[PACKET_BYTES];
};

struct way {
  int from, to;
  uint64_t line_free_ns; // when the line has sent everything that was accepted so far
  uint64_t random;
  uint32_t first, count;
  uint64_t carried, lost, overflowed;
  struct packet *packets;
};

struct line {
  uint64_t delay_ns, loss_ppm, rate_kbit, queue_bytes;
  bool cut;
};

static void fail(const char *what) {
  fprintf(stderr, "impair: %s: %s\n", what, strerror(errno));
  exit(1);
}

static uint64_t clock_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

// SplitMix64 (Steele, Lea, Flood 2014).
static uint64_t draw(uint64_t *state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// A TUN device belongs to the namespace in which it was made; its descriptor works from everywhere.
static int open_device(const char *name_of_namespace, int home) {
  char path[256];
  snprintf(path, sizeof path, "/run/netns/%s", name_of_namespace);
  int namespace = open(path, O_RDONLY | O_CLOEXEC);
  if (namespace < 0 || setns(namespace, CLONE_NEWNET) < 0) fail(path);
  int device = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (device < 0) fail("/dev/net/tun");
  struct ifreq request = {.ifr_name = "wire", .ifr_flags = IFF_TUN | IFF_NO_PI};
  if (ioctl(device, TUNSETIFF, &request) < 0) fail("TUNSETIFF");
  if (setns(home, CLONE_NEWNET) < 0) fail("setns");
  close(namespace);
  return device;
}

// Takes everything that is ready out of one end.
static void accept_packets(struct way *way, const struct line *line) {
  unsigned char dropped[PACKET_BYTES];
  for (;;) {
    bool full = way->count == SLOTS;
    struct packet *packet = &way->packets[(way->first + way->count) & (SLOTS - 1)];
    ssize_t length = read(way->from, full ? dropped : packet->bytes, PACKET_BYTES);
    if (length <= 0) return;
    if (draw(&way->random) % 1000000u < line->loss_ppm || line->cut) {
      way->lost++;
      continue;
    }
    uint64_t now = clock_ns();
    uint64_t start = way->line_free_ns > now ? way->line_free_ns : now;
    uint64_t waiting_bytes = line->rate_kbit == 0 ? 0 : (start - now) * line->rate_kbit / 8000000u;
    if (full || waiting_bytes > line->queue_bytes) {
      way->overflowed++;
      continue;
    }
    way->line_free_ns = start + (line->rate_kbit == 0 ? 0 : (uint64_t)length * 8000000u / line->rate_kbit);
    packet->length = (uint32_t)length;
    packet->arrives_ns = way->line_free_ns + line->delay_ns;
    way->count++;
  }
}

// Hands over everything whose time has come; returns when the next one is due, 0 for never.
static uint64_t deliver_packets(struct way *way) {
  while (way->count > 0) {
    struct packet *packet = &way->packets[way->first];
    if (packet->arrives_ns > clock_ns()) return packet->arrives_ns;
    if (write(way->to, packet->bytes, packet->length) == (ssize_t)packet->length) way->carried++;
    else way->overflowed++;
    way->first = (way->first + 1) & (SLOTS - 1);
    way->count--;
  }
  return 0;
}

static void set_alarm(int timer, uint64_t a, uint64_t b) {
  uint64_t next = a == 0 ? b : b == 0 ? a : a < b ? a : b;
  struct itimerspec at = {.it_value = {.tv_sec = (time_t)(next / 1000000000u), .tv_nsec = (long)(next % 1000000000u)}};
  timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
}

static void watch(int epoll, int descriptor) {
  struct epoll_event event = {.events = EPOLLIN, .data.fd = descriptor};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, descriptor, &event) < 0) fail("epoll_ctl");
}

static int watch_signals(void) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGUSR1);
  sigaddset(&signals, SIGUSR2);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  return signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
}

int main(int count, char **values) {
  if (count != 8) {
    fputs("usage: impair NAMESPACE_A NAMESPACE_B DELAY_US LOSS_PPM RATE_KBIT QUEUE_BYTES SEED\n", stderr);
    return 2;
  }
  struct line line = {strtoull(values[3], NULL, 10) * 1000u, strtoull(values[4], NULL, 10),
                      strtoull(values[5], NULL, 10), strtoull(values[6], NULL, 10), false};
  uint64_t seed = strtoull(values[7], NULL, 10);
  int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  int a = open_device(values[1], home), b = open_device(values[2], home);
  struct way ways[2] = {{.from = a, .to = b, .random = seed}, {.from = b, .to = a, .random = ~seed}};
  for (int i = 0; i < 2; i++)
    if ((ways[i].packets = calloc(SLOTS, sizeof(struct packet))) == NULL) fail("calloc");

  int signals = watch_signals(), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  int epoll = epoll_create1(EPOLL_CLOEXEC);
  watch(epoll, a);
  watch(epoll, b);
  watch(epoll, timer);
  watch(epoll, signals);
  puts("{\"event\":\"ready\"}");
  fflush(stdout);

  for (bool running = true; running;) {
    struct epoll_event events[4];
    if (epoll_wait(epoll, events, 4, -1) < 0 && errno != EINTR) fail("epoll_wait");
    struct signalfd_siginfo signal;
    while (read(signals, &signal, sizeof signal) == sizeof signal) {
      if (signal.ssi_signo == SIGUSR1) line.cut = true;
      else if (signal.ssi_signo == SIGUSR2) line.cut = false;
      else running = false;
    }
    uint64_t expirations;
    (void)!read(timer, &expirations, sizeof expirations);
    for (int i = 0; i < 2; i++) accept_packets(&ways[i], &line);
    set_alarm(timer, deliver_packets(&ways[0]), deliver_packets(&ways[1]));
  }
  for (int i = 0; i < 2; i++)
    printf("{\"event\":\"end\",\"way\":\"%s\",\"carried\":%lu,\"lost\":%lu,\"overflowed\":%lu}\n", i == 0 ? "a>b" : "b>a",
           ways[i].carried, ways[i].lost, ways[i].overflowed);
  return 0;
}
