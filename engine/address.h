// Addresses: struct amb_addr to and from sockets and text. Pure.
#ifndef AMBIENT_ADDRESS_H
#define AMBIENT_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>

#include "abi.h"

enum { ADDRESS_TEXT = 56 }; // "[", 45 characters of IPv6, "]:65535" and the zero

struct amb_addr address_of(const struct sockaddr_storage *);
socklen_t address_to(const struct amb_addr *, int family, struct sockaddr_storage *); // 0: not of that family
bool address_is_v4(const struct amb_addr *);
const char *address_text(const struct amb_addr *, char text[ADDRESS_TEXT]); // "1.2.3.4:80", "[2001:db8::1]:80"
bool address_parse(const char *text, size_t n, struct amb_addr *);          // of the same form
bool authority_is_valid(const char *text, size_t n);                        // host:port, host an address or a name
bool forwarded_port(const char *value, uint32_t *port);                     // of `forwarded: for="ip:port"`
const char *forwarded_host(const char *value);                              // from `host=` on; NULL: it has none

#endif
