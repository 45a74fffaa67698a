// What `ambient trace` asks the kernel: tracepoints only, read only, filtered by the addresses of the pods watched.
// Compiled by bcc in tracer.py, which also says what HAS_SYSCALLS and RESET_HAS_REASON are. Words are narrator.py's.
#include <uapi/linux/ptrace.h>
#if __has_include(<net/rstreason.h>)
#include <net/rstreason.h>
#else
enum sk_rst_reason { NO_RST_REASON };  // the headers may be older than the kernel whose format names it
#endif

struct event {
    u64 at_ns, sock, age_ns, cgroup;
    u32 kind, pid, detail, more;
    u16 sport, dport, family, zero;
    u8 saddr[16], daddr[16];
    char comm[16];
};
struct ip { u8 b[16]; };
struct born { u64 at_ns; u32 pid; char comm[16]; };
struct call { u16 family, port; u8 ip[16]; };

BPF_HASH(pods, struct ip, u8, 65536);
BPF_TABLE("lru_hash", u64, struct born, born, 65536);
BPF_TABLE("lru_hash", u32, struct call, calls, 16384);
BPF_PERCPU_ARRAY(scratch, struct event, 1);
BPF_PERF_OUTPUT(events);

enum { STATE = 1, RESET_SENT, RESET_SEEN, RETRANSMIT, CONNECT_FAILED };
enum { ESTABLISHED = 1, SYN_SENT = 2, CLOSED = 7 };

static __always_inline void map4(u8 *to, const void *from) {
    __builtin_memset(to, 0, 10);
    to[10] = to[11] = 0xff;
    bpf_probe_read_kernel(to + 12, 4, from);
}

static __always_inline struct event *fresh(u32 kind, u64 sock) {
    int zero = 0;
    struct event *e = scratch.lookup(&zero);
    if (!e) return 0;
    __builtin_memset(e, 0, sizeof(*e));
    e->kind = kind;
    e->sock = sock;
    e->at_ns = bpf_ktime_get_ns();
    return e;
}

static __always_inline int wanted(struct event *e) {
    return pods.lookup((struct ip *)e->saddr) || pods.lookup((struct ip *)e->daddr);
}

#define ADDRESSES(e, args)                                              \
    do {                                                                \
        (e)->sport = (args)->sport;                                     \
        (e)->dport = (args)->dport;                                     \
        (e)->family = (args)->family;                                   \
        if ((args)->family == 10) {                                     \
            bpf_probe_read_kernel((e)->saddr, 16, (args)->saddr_v6);    \
            bpf_probe_read_kernel((e)->daddr, 16, (args)->daddr_v6);    \
        } else {                                                        \
            map4((e)->saddr, (args)->saddr);                            \
            map4((e)->daddr, (args)->daddr);                            \
        }                                                               \
    } while (0)

TRACEPOINT_PROBE(sock, inet_sock_set_state) {
    if (args->protocol != 6) return 0;
    u64 sock = (u64)args->skaddr;
    struct event *e = fresh(STATE, sock);
    if (!e) return 0;
    ADDRESSES(e, args);
    if (!wanted(e)) return 0;
    e->detail = args->oldstate;
    e->more = args->newstate;
    struct born *was = born.lookup(&sock);
    if (was) {
        e->age_ns = e->at_ns - was->at_ns;
        e->pid = was->pid;
        __builtin_memcpy(e->comm, was->comm, 16);
    }
    if (args->newstate == SYN_SENT || (args->newstate == ESTABLISHED && !was)) {
        struct born now = {.at_ns = e->at_ns};
        if (args->newstate == SYN_SENT) {  // in the caller's context; an accepted socket is born in the softirq's
            now.pid = bpf_get_current_pid_tgid() >> 32;
            bpf_get_current_comm(now.comm, 16);
            e->pid = now.pid;
            __builtin_memcpy(e->comm, now.comm, 16);
        }
        born.update(&sock, &now);
    }
    if (args->newstate == CLOSED) born.delete(&sock);
    events.perf_submit(args, e, sizeof(*e));
    return 0;
}

TRACEPOINT_PROBE(tcp, tcp_receive_reset) {
    struct event *e = fresh(RESET_SEEN, (u64)args->skaddr);
    if (!e) return 0;
    ADDRESSES(e, args);
    if (wanted(e)) events.perf_submit(args, e, sizeof(*e));
    return 0;
}

TRACEPOINT_PROBE(tcp, tcp_retransmit_skb) {
    struct event *e = fresh(RETRANSMIT, (u64)args->skaddr);
    if (!e) return 0;
    ADDRESSES(e, args);
    e->detail = args->state;
    if (wanted(e)) events.perf_submit(args, e, sizeof(*e));
    return 0;
}

TRACEPOINT_PROBE(tcp, tcp_send_reset) {
    struct event *e = fresh(RESET_SENT, (u64)args->skaddr);
    if (!e) return 0;
    e->detail = args->state;
#ifdef RESET_HAS_REASON
    // struct sockaddr_in or _in6; the source is who sends the reset
    e->more = args->reason;
    u16 port;
    bpf_probe_read_kernel(&e->family, 2, args->saddr);
    bpf_probe_read_kernel(&port, 2, args->saddr + 2);
    e->sport = ntohs(port);
    bpf_probe_read_kernel(&port, 2, args->daddr + 2);
    e->dport = ntohs(port);
    if (e->family == 10) {
        bpf_probe_read_kernel(e->saddr, 16, args->saddr + 8);
        bpf_probe_read_kernel(e->daddr, 16, args->daddr + 8);
    } else {
        map4(e->saddr, args->saddr + 4);
        map4(e->daddr, args->daddr + 4);
    }
#else
    ADDRESSES(e, args);
#endif
    if (wanted(e)) events.perf_submit(args, e, sizeof(*e));
    return 0;
}

#ifdef HAS_SYSCALLS
// A connect() that a hook refuses never becomes a state: only the system call's result tells.
TRACEPOINT_PROBE(syscalls, sys_enter_connect) {
    struct call c = {};
    u32 thread = bpf_get_current_pid_tgid();
    const char *from = (const char *)args->uservaddr;
    bpf_probe_read_user(&c.family, 2, from);
    if (c.family != 2 && c.family != 10) return 0;
    bpf_probe_read_user(&c.port, 2, from + 2);
    if (c.family == 10) {
        bpf_probe_read_user(c.ip, 16, from + 8);
    } else {
        c.ip[10] = c.ip[11] = 0xff;
        bpf_probe_read_user(c.ip + 12, 4, from + 4);
    }
    calls.update(&thread, &c);
    return 0;
}

TRACEPOINT_PROBE(syscalls, sys_exit_connect) {
    u64 who = bpf_get_current_pid_tgid();
    u32 thread = who;
    struct call *c = calls.lookup(&thread);
    if (!c) return 0;
    if (args->ret == -1 || args->ret == -13) {  // EPERM: a cgroup hook said no; EACCES: another security module
        struct event *e = fresh(CONNECT_FAILED, 0);
        if (e) {
            e->pid = who >> 32;
            e->cgroup = bpf_get_current_cgroup_id();
            e->detail = -args->ret;
            e->family = c->family;
            e->dport = ntohs(c->port);
            __builtin_memcpy(e->daddr, c->ip, 16);
            bpf_get_current_comm(e->comm, 16);
            events.perf_submit(args, e, sizeof(*e));
        }
    }
    calls.delete(&thread);
    return 0;
}
#endif
