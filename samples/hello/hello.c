/* A unikernel that says hello.
 *
 * Words of the command line (others are ignored):
 *   exit=N   the exit status, 0 to 127 (default 0)
 *   wait     halt for ever in place of exiting, using no processor time
 *   echo     first send every line of input back, until a ^D
 */
#include "console.h"
#include "disk.h"

enum {
    BOOT_MAGIC = 0x336ec578,
    DEBUG_EXIT = 0x501, /* QEMU's isa-debug-exit: writing v ends QEMU with status 2v + 1 */
    END_OF_TRANSMISSION = 4,
    EXT4_SUPERBLOCK = 1024,
    EXT4_MAGIC_AT = EXT4_SUPERBLOCK + 56,
};

/* What the loader passes, as far as it is read here (Xen, arch-x86/hvm/start_info.h). */
struct hvm_start_info {
    uint32_t magic, version, flags, modules;
    uint64_t module_list, command_line;
};

/* The value of the word `name` in the command line: what follows it ("" for a bare word), NULL without such a word. */
static const char *find_word(const char *line, const char *name)
{
    while (*line) {
        const char *have = line, *want = name;
        while (*want && *have == *want)
            have++, want++;
        if (!*want && (have[-1] == '=' || *have == ' ' || !*have))
            return have;
        while (*line && *line != ' ')
            line++;
        while (*line == ' ')
            line++;
    }
    return NULL;
}

static uint8_t exit_status(const char *line)
{
    const char *digit = find_word(line, "exit=");
    uint32_t status = 0;
    while (digit && *digit >= '0' && *digit <= '9' && status <= 127)
        status = status * 10 + (*digit++ - '0');
    return status <= 127 ? status : 127;
}

static void show_disk(void)
{
    static uint8_t head[4 * SECTOR];
    const char *attached = disk_open();
    if (!attached)
        return;
    print("disk: ");
    print(attached);
    print(", ");
    print_number(disk_sectors());
    print(" sectors, ");
    if (!disk_read(0, head, sizeof head)) {
        print("unreadable\n");
        return;
    }
    print("begins");
    for (int i = 0; i < 16; i++) {
        print(" ");
        print_hex(head[i]);
    }
    print(head[EXT4_MAGIC_AT] == 0x53 && head[EXT4_MAGIC_AT + 1] == 0xef ? ", ext4\n" : ", not ext4\n");
}

static void echo(void)
{
    char text[2] = {0};
    while ((text[0] = console_read()) != END_OF_TRANSMISSION)
        print(text[0] == '\r' ? "\n" : text);
}

static void stop(uint8_t status)
{
    console_drain();
    out8(DEBUG_EXIT, status);
    /* Without that device a reset is the nearest to it, and without interrupt descriptors any exception is one. */
    __asm__ volatile("lidt %0; int3" : : "m"((const uint8_t[6]){0}));
}

void kernel_main(const struct hvm_start_info *info)
{
    const char *line = "";
    if (info->magic == BOOT_MAGIC && info->command_line)
        line = (const char *)(uint32_t)info->command_line;

    console_open();
    print("hello from a unikernel\n");
    print("command line: ");
    print(line);
    print("\n");
    show_disk();

    if (find_word(line, "echo"))
        echo();
    if (!find_word(line, "wait"))
        stop(exit_status(line));
    for (;;)
        __asm__ volatile("cli; hlt");
}
