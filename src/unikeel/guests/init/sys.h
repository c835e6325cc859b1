/* Linux's system calls on x86-64, as far as the init needs them, and nothing of a C library: each returns what the kernel does, a negative errno for an error. */
#ifndef SYS_H
#define SYS_H

#include <asm/unistd.h>
#include <stddef.h>
#include <stdint.h>

static inline long call(long number, long a, long b, long c, long d, long e)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return result;
}

#define CALL5(name, a, b, c, d, e) call(__NR_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define CALL4(name, a, b, c, d) CALL5(name, a, b, c, d, 0)
#define CALL3(name, a, b, c) CALL5(name, a, b, c, 0, 0)
#define CALL2(name, a, b) CALL5(name, a, b, 0, 0, 0)
#define CALL1(name, a) CALL5(name, a, 0, 0, 0, 0)
#define CALL0(name) CALL5(name, 0, 0, 0, 0, 0)

/* Of errno.h, what is looked for. */
enum { NO_ENTRY = 2, INTERRUPTED = 4, NO_CHILD = 10, EXISTS = 17, BUSY = 16 };

#endif
