/* Process 1 of a Linux guest that runs the program of an ordinary container image.
 *
 * It mounts what is needed, loads drivers, makes the container's disk the root, sets up network, host name and DNS server, runs the program as the user and where
 * the settings say, reaps, passes signals on, tells the host the program's exit status and ends the guest.
 */
#include "files.h"
#include "network.h"
#include "running.h"
#include "settings.h"
#include "sys.h"
#include "text.h"

#include <linux/reboot.h>

enum { DEBUG_EXIT_PORT = 0x501, HIGHEST_STATUS = 127, FAILED = 125 };

static void power_off(void) __attribute__((noreturn));

static void power_off(void)
{
    settle_processes();
    settle_files();
    CALL4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, NULL);
    CALL4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_RESTART, NULL); /* no power off: with -no-reboot, QEMU ends here, too */
    for (;;)
        CALL0(pause);
}

/* End the guest with an exit status: by user-mode Linux's own file, else by QEMU's isa-debug-exit, whose values reach to 127. */
static void end(int status) __attribute__((noreturn));

static void end(int status)
{
    char line[16] = "";
    append(line, sizeof line, digits(status));
    append(line, sizeof line, "\n"); /* without it, the kernel would read on in what it never wrote */
    if (write_file("/proc/exitcode", line, 0))
        power_off();
    settle_processes();
    settle_files();
    if (CALL3(ioperm, DEBUG_EXIT_PORT, 1, 1) == 0) {
        unsigned char value = (unsigned char)(status > HIGHEST_STATUS ? HIGHEST_STATUS : status);
        __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"((unsigned short)DEBUG_EXIT_PORT));
    }
    power_off();
}

void begin(void) __attribute__((noreturn, used));

void begin(void)
{
    static struct settings settings;
    CALL4(reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_CAD_OFF, NULL); /* it comes to us, as SIGINT */
    mount_system();
    if (!read_settings(&settings))
        end(FAILED);
    load_modules(&settings);
    open_console(&settings);
    network_up(&settings);
    if (!reach_volumes(&settings) || !enter_root(&settings))
        end(FAILED);
    furnish(&settings);
    if (!mount_volumes(&settings))
        end(FAILED);
    if (!settings.arguments[0]) {
        say("init: there is no program to run", NULL);
        end(FAILED);
    }
    int status = run(&settings);
    if (status < 0)
        power_off();
    end(status);
}

/* The kernel jumps here. The stack is aligned as a function expects it after a call. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tand $-16, %rsp\n\tcall begin\n");
