#include "network.h"
#include "guest.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <net/route.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* The fields of ip=, in its order. */
enum { ADDRESS, SERVER, GATEWAY, NETMASK, HOSTNAME, DEVICE, FIELDS };

static void set_address(struct sockaddr *to, const char *text)
{
    struct sockaddr_in *address = (struct sockaddr_in *)to;
    *address = (struct sockaddr_in){.sin_family = AF_INET};
    if (*text && inet_pton(AF_INET, text, &address->sin_addr) != 1)
        say("guest: not an IPv4 address: ", text, NULL);
}

static void set_up(int socket, const char *device)
{
    struct ifreq request = {0};
    strncpy(request.ifr_name, device, IFNAMSIZ - 1);
    request.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(socket, SIOCSIFFLAGS, &request))
        say("guest: cannot bring up ", device, ": ", strerror(errno), NULL);
}

static void configure(int socket, char *const fields[])
{
    struct ifreq request = {0};
    strncpy(request.ifr_name, fields[DEVICE], IFNAMSIZ - 1);
    set_address(&request.ifr_addr, fields[ADDRESS]);
    if (ioctl(socket, SIOCSIFADDR, &request))
        say("guest: cannot set the address of ", fields[DEVICE], ": ", strerror(errno), NULL);
    set_address(&request.ifr_netmask, fields[NETMASK]);
    if (*fields[NETMASK] && ioctl(socket, SIOCSIFNETMASK, &request))
        say("guest: cannot set the netmask of ", fields[DEVICE], ": ", strerror(errno), NULL);
}

static int add_route(int socket, char *device, const char *to, const char *gateway, int flags)
{
    struct rtentry route = {.rt_dev = device, .rt_flags = RTF_UP | flags};
    set_address(&route.rt_dst, to);
    set_address(&route.rt_gateway, gateway);
    set_address(&route.rt_genmask, flags & RTF_HOST ? "255.255.255.255" : "0.0.0.0");
    return ioctl(socket, SIOCADDRT, &route);
}

/* A gateway may lie outside of the device's network: then it gets a route of its own first. */
static void add_default_route(int socket, char *device, const char *gateway)
{
    if (!add_route(socket, device, "", gateway, RTF_GATEWAY))
        return;
    if (add_route(socket, device, gateway, "", RTF_HOST) || add_route(socket, device, "", gateway, RTF_GATEWAY))
        say("guest: cannot add a route by ", gateway, ": ", strerror(errno), NULL);
}

void network_up(char *ip)
{
    char *fields[FIELDS] = {"", "", "", "", "", "eth0"}, *field;
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    set_up(control, "lo");
    for (int i = 0; i < FIELDS && (field = strsep(&ip, ":")); i++)
        if (*field)
            fields[i] = field;

    if (*fields[ADDRESS]) {
        configure(control, fields);
        set_up(control, fields[DEVICE]);
        if (*fields[GATEWAY])
            add_default_route(control, fields[DEVICE], fields[GATEWAY]);
    }
    if (*fields[HOSTNAME] && sethostname(fields[HOSTNAME], strlen(fields[HOSTNAME])))
        say("guest: cannot set the host name: ", strerror(errno), NULL);
    close(control);
}

bool accepts_connections(int port)
{
    const struct sockaddr_in here = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool accepted = !connect(client, (const struct sockaddr *)&here, sizeof here);
    close(client);
    return accepted;
}
