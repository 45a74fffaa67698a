// decide.h and abi.h as a shared object: the truth tables' subject, and the layout the Python mirror is compared with.
#include "decide.h"

#include <stddef.h>

int decide_connect(const struct amb_connect_facts *facts) {
  struct amb_decision decision = amb_decide_connect(facts);
  return decision.verdict << 16 | decision.reason;
}

int option_reroutes(unsigned level, unsigned option) { return amb_option_reroutes(level, option); }

int decide_setsockopt(const struct amb_setsockopt_facts *facts) {
  struct amb_decision decision = amb_decide_setsockopt(facts);
  return decision.verdict << 16 | decision.reason;
}

int decide_lookup(const struct amb_lookup_facts *facts) {
  struct amb_lookup_decision decision = amb_decide_lookup(facts);
  return decision.role << 24 | decision.verdict << 16 | decision.reason;
}

int decide_direct(const struct amb_direct_facts *facts) {
  struct amb_decision decision = amb_decide_direct(facts);
  return decision.verdict << 16 | decision.reason;
}

unsigned choose(const struct amb_verdict *verdict, unsigned random) { return amb_choose(verdict, random); }

int admits(const struct amb_flow *flow, unsigned long long netns_cookie, const struct amb_verdict *verdict, int taken) {
  return amb_admits(flow, netns_cookie, verdict, taken);
}

#define SIZE(type)      {#type, "", sizeof(struct type)}
#define AT(type, field) {#type, #field, offsetof(struct type, field)}
#define NUMBER(name)    {"", #name, name}
const struct layout {
  const char *type, *field;
  long value;
} layout[] = {
    SIZE(amb_ip),
    SIZE(amb_pod),
    AT(amb_pod, flags),
    AT(amb_pod, addresses),
    AT(amb_pod, listener_port),
    AT(amb_pod, address),
    SIZE(amb_port_key),
    AT(amb_port_key, netns_cookie),
    AT(amb_port_key, port),
    AT(amb_port_key, direction),
    SIZE(amb_cidr_key),
    AT(amb_cidr_key, prefix_len),
    AT(amb_cidr_key, netns_cookie),
    AT(amb_cidr_key, ip),
    SIZE(amb_listener_key),
    AT(amb_listener_key, netns_cookie),
    AT(amb_listener_key, role),
    SIZE(amb_client_key),
    AT(amb_client_key, netns_cookie),
    AT(amb_client_key, ip),
    AT(amb_client_key, port),
    SIZE(amb_client_value),
    AT(amb_client_value, ip),
    AT(amb_client_value, port),
    SIZE(amb_verdict_key),
    AT(amb_verdict_key, client),
    AT(amb_verdict_key, ip),
    AT(amb_verdict_key, port),
    SIZE(amb_endpoint),
    AT(amb_endpoint, ip),
    AT(amb_endpoint, port),
    AT(amb_endpoint, weight),
    AT(amb_endpoint, server),
    SIZE(amb_verdict),
    AT(amb_verdict, number),
    AT(amb_verdict, kind),
    AT(amb_verdict, count),
    AT(amb_verdict, weight),
    AT(amb_verdict, endpoint),
    SIZE(amb_flow_key),
    AT(amb_flow_key, source),
    AT(amb_flow_key, destination),
    AT(amb_flow_key, source_port),
    AT(amb_flow_key, destination_port),
    SIZE(amb_flow),
    AT(amb_flow, client),
    AT(amb_flow, server),
    AT(amb_flow, number),
    AT(amb_flow, started),
    AT(amb_flow, established),
    AT(amb_flow, admitted),
    AT(amb_flow, dialled),
    AT(amb_flow, dialled_port),
    AT(amb_flow, kind),
    SIZE(amb_seat),
    AT(amb_seat, client),
    AT(amb_seat, number),
    SIZE(amb_ended),
    AT(amb_ended, client),
    AT(amb_ended, server),
    AT(amb_ended, number),
    AT(amb_ended, started),
    AT(amb_ended, established),
    AT(amb_ended, ended),
    AT(amb_ended, bytes_out),
    AT(amb_ended, bytes_in),
    AT(amb_ended, flow),
    AT(amb_ended, dialled),
    AT(amb_ended, dialled_port),
    AT(amb_ended, error),
    AT(amb_ended, kind),
    AT(amb_ended, state),
    AT(amb_ended, last),
    NUMBER(AMB_ABI_VERSION),
    NUMBER(AMB_MARK),
    NUMBER(AMB_MARK_DIRECT),
    NUMBER(AMB_MARK_MASK),
    NUMBER(AMB_ENDPOINTS),
    NUMBER(AMB_MAX_VERDICTS),
    NUMBER(AMB_MAX_FLOWS),
    NUMBER(AMB_SEATS),
    NUMBER(AMB_RING_BYTES),
    NUMBER(AMB_RING_BACKLOG),
    NUMBER(AMB_TUNNEL_PORT),
    NUMBER(AMB_POD_ADDRESSES),
    NUMBER(AMB_POD_CAPTURE),
    NUMBER(AMB_REASONS),
    NUMBER(AMB_CIDR_LONGEST),
    {0, 0, 0},
};
