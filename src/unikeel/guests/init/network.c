#include "network.h"
#include "sys.h"
#include "text.h"

#include <asm/socket.h>
#include <linux/if.h>
#include <linux/in.h>
#include <linux/ipv6.h>
#include <linux/ipv6_route.h>
#include <linux/route.h>
#include <linux/sockios.h>

static const char device[] = "eth0";

enum { INET6 = 10, DATAGRAMS = 2, CLOSE_ON_EXEC = 02000000 };

static void set(struct sockaddr *to, uint32_t value)
{
    *(struct sockaddr_in *)to = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = value};
}

static uint32_t mask(long prefix)
{
    uint32_t host = prefix ? 0xffffffffu << (32 - prefix) : 0;
    return __builtin_bswap32(host);
}

static bool bring_up(long socket, const char *name)
{
    struct ifreq request = {.ifr_flags = IFF_UP | IFF_RUNNING};
    append(request.ifr_name, IFNAMSIZ, name);
    return CALL3(ioctl, socket, SIOCSIFFLAGS, &request) == 0;
}

static bool set_address(long socket, unsigned long what, uint32_t value)
{
    struct ifreq request = {0};
    append(request.ifr_name, IFNAMSIZ, device);
    set(&request.ifr_addr, value);
    return CALL3(ioctl, socket, what, &request) == 0;
}

static bool add_route(long socket, uint32_t to, uint32_t gateway, unsigned short flags)
{
    struct rtentry route = {.rt_dev = (char *)device, .rt_flags = (unsigned short)(RTF_UP | flags)};
    set(&route.rt_dst, to);
    set(&route.rt_gateway, gateway);
    set(&route.rt_genmask, flags & RTF_HOST ? 0xffffffffu : 0);
    return CALL3(ioctl, socket, SIOCADDRT, &route) == 0;
}

static int digit(char letter)
{
    if (letter >= '0' && letter <= '9')
        return letter - '0';
    return letter >= 'a' && letter <= 'f' ? letter - 'a' + 10 : -1;
}

/* 32 hexadecimal digits; what follows them, or NULL if there are fewer. */
static const char *address6(const char *text, struct in6_addr *result)
{
    for (int i = 0; i < 32; i++) {
        int value = digit(text[i]);
        if (value < 0)
            return NULL;
        unsigned char *byte = &result->s6_addr[i / 2];
        *byte = (unsigned char)(*byte << 4 | value);
    }
    return text + 32;
}

static int number_of(long socket, const char *name)
{
    struct ifreq request = {0};
    append(request.ifr_name, IFNAMSIZ, name);
    return CALL3(ioctl, socket, SIOCGIFINDEX, &request) == 0 ? request.ifr_ifindex : -1;
}

static void network6_up(long socket, const struct settings *settings)
{
    struct in6_ifreq own = {.ifr6_ifindex = number_of(socket, device)};
    struct in6_rtmsg route = {
        .rtmsg_metric = 1, .rtmsg_flags = RTF_UP | RTF_GATEWAY, .rtmsg_ifindex = own.ifr6_ifindex};
    long socket6 = CALL3(socket, INET6, DATAGRAMS | CLOSE_ON_EXEC, 0);
    const char *rest = address6(settings->interface6, &own.ifr6_addr);
    long prefix = rest && *rest == '/' ? number(rest + 1, NULL) : -1;
    own.ifr6_prefixlen = (uint32_t)prefix;
    if (prefix < 0 || prefix > 128)
        say("init: not an address: ", settings->interface6, NULL);
    else if (!bring_up(socket, device) || CALL3(ioctl, socket6, SIOCSIFADDR, &own) < 0)
        say("init: cannot give ", device, " its IPv6 address", NULL);
    else if (settings->gateway6
             && (!address6(settings->gateway6, &route.rtmsg_gateway) || CALL3(ioctl, socket6, SIOCADDRT, &route) < 0))
        say("init: cannot add a route by ", settings->gateway6, NULL);
    CALL1(close, socket6);
}

void network_up(const struct settings *settings)
{
    uint32_t own, gateway;
    const char *rest;
    long socket = CALL3(socket, AF_INET, DATAGRAMS | CLOSE_ON_EXEC, 0);
    if (!bring_up(socket, "lo"))
        say("init: cannot bring up lo", NULL);
    if (settings->interface) {
        if (!address(settings->interface, &own, &rest) || *rest != '/' || number(rest + 1, NULL) < 0
            || number(rest + 1, NULL) > 32)
            say("init: not an address: ", settings->interface, NULL);
        else if (!set_address(socket, SIOCSIFADDR, own) || !set_address(socket, SIOCSIFNETMASK, mask(number(rest + 1, NULL)))
                 || !bring_up(socket, device))
            say("init: cannot bring up ", device, NULL);
    }
    if (settings->interface && settings->gateway) {
        /* A gateway may lie outside of the device's network: then it gets a route of its own first. */
        bool routed = address(settings->gateway, &gateway, NULL)
            && (add_route(socket, 0, gateway, RTF_GATEWAY)
                || (add_route(socket, gateway, 0, RTF_HOST) && add_route(socket, 0, gateway, RTF_GATEWAY)));
        if (!routed)
            say("init: cannot add a route by ", settings->gateway, NULL);
    }
    if (settings->interface6)
        network6_up(socket, settings);
    CALL1(close, socket);
}
