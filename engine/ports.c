#include "ports.h"

#include <errno.h>
#include <sys/socket.h>

#include "address.h"
#include "bounds.h"

static int bind_to(int fd, int family, const struct amb_addr *own) {
  struct sockaddr_storage s;
  socklen_t n = address_to(own, family, &s);
  if (!n) return EAFNOSUPPORT;
  return bind(fd, (struct sockaddr *)&s, n) ? errno : 0;
}

static void allow_others(int fd) {
  int one = 1; // without it bind() is only stricter, for us or for an app that wants to listen there
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
}

static int learn(struct ports *ports, int fd, int family, struct amb_addr *own) {
  struct sockaddr_storage s;
  socklen_t n = sizeof s;
  allow_others(fd); // before: a port on which a connection has just ended will do
  own->port = 0;
  int error = bind_to(fd, family, own);
  if (error) return error;
  if (getsockname(fd, (struct sockaddr *)&s, &n)) return errno;
  own->port = address_of(&s).port;
  if (!ports->low || own->port < ports->low) ports->low = own->port;
  if (own->port > ports->high) ports->high = own->port;
  return 0;
}

// The kernel looks for a free port by trying every other one of half its range, which takes milliseconds once some
// thousands are in use. One after the other is free at once, nearly always: what was used longest ago comes next. Those
// that are not come in rows (so many connections, opened at once; or ended, and in TIME_WAIT), so we go on elsewhere.
int ports_bind(struct ports *ports, int fd, int family, struct amb_addr *own) {
  uint32_t count = ports->high - ports->low + 1u, jump = count / 8 * 5; // about the golden section: soon everywhere
  for (int i = 0; i < PORTS_TRIED && count > PORTS_KNOWN; i++) {
    uint32_t at = ports->next >= ports->low ? (uint32_t)ports->next - ports->low + (i ? jump : 0) : 0;
    own->port = (uint16_t)(ports->low + at % count);
    ports->next = own->port < UINT16_MAX ? own->port + 1 : 0;
    int error = bind_to(fd, family, own); // without SO_REUSEADDR, which would let two living connections have the port
    if (!error) allow_others(fd);
    if (error != EADDRINUSE) return error;
  }
  return learn(ports, fd, family, own);
}
