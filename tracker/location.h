/*
 * Where a client is, as far as its address alone tells: the class of the address. Places come from
 * a database in a later version.
 */
#ifndef TRACKER_LOCATION_H
#define TRACKER_LOCATION_H

/*
 * numeric_address  IPv4 or IPv6 text without port, from outside; IPv4-mapped IPv6 counts as IPv4
 *
 * Returns a static word: "loopback", "private", "carrier-nat", "link-local", "unique-local",
 * "multicast", "documentation" or "public"; "" when the text is no address.
 */
const char *location_of(const char *numeric_address);

#endif
