#include "settings.h"
#include "sys.h"
#include "text.h"

#include <asm/fcntl.h>
#include <asm/stat.h>
#include <linux/mman.h>

static const char path[] = "/unikeel.conf";

static bool add(char **list, int most, char *value)
{
    int count = 0;
    while (list[count])
        count++;
    if (count == most)
        return false;
    list[count] = value;
    return true;
}

static bool take(struct settings *settings, char kind, char *value)
{
    switch (kind) {
    case 'c': settings->console = value; return true;
    case 'd': settings->device = value; return true;
    case 't': settings->type = value; return true;
    case 'o': settings->options = value; return true;
    case 'r': settings->read_only = true; return true;
    case 'x': settings->share = value; return true;
    case 'y': settings->share_options = value; return true;
    case 'v': return add(settings->volumes, MOST_VOLUMES, value);
    case 'h': settings->host = value; return true;
    case 'i': settings->interface = value; return true;
    case 'g': settings->gateway = value; return true;
    case 'j': settings->interface6 = value; return true;
    case 'k': settings->gateway6 = value; return true;
    case 'n': settings->dns = value; return true;
    case 'w': settings->directory = value; return true;
    case 'u': return (settings->user = number(value, NULL)) >= 0;
    case 'p': return (settings->group = number(value, NULL)) >= 0;
    case 's':
        if (settings->group_count == MOST_GROUPS || number(value, NULL) < 0)
            return false;
        settings->groups[settings->group_count++] = (int)number(value, NULL);
        return true;
    case 'm': return add(settings->modules, MOST_MODULES, value);
    case 'e': return add(settings->variables, MOST_WORDS, value);
    case 'a': return add(settings->arguments, MOST_WORDS, value);
    default: return false;
    }
}

bool read_settings(struct settings *settings)
{
    struct stat info;
    long file = CALL3(open, path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0 || CALL2(fstat, file, &info) < 0 || info.st_size < 1) {
        say("init: cannot read ", path, NULL);
        return false;
    }
    /* Private and writable: the texts stay where they are, and are ours. */
    register long flags __asm__("r10") = MAP_PRIVATE;
    register long descriptor __asm__("r8") = file;
    register long offset __asm__("r9") = 0;
    long mapped;
    __asm__ volatile("syscall"
                     : "=a"(mapped)
                     : "a"((long)__NR_mmap), "D"(0L), "S"((long)info.st_size), "d"((long)(PROT_READ | PROT_WRITE)),
                       "r"(flags), "r"(descriptor), "r"(offset)
                     : "rcx", "r11", "memory");
    CALL1(close, file);
    char *text = (char *)mapped, *end = text + info.st_size;
    if (mapped < 0 && mapped > -4096) {
        say("init: cannot map ", path, NULL);
        return false;
    }
    if (end[-1]) {
        say("init: ", path, " does not end with NUL", NULL);
        return false;
    }
    for (; text < end; text += length(text) + 1)
        if (text[0] == 0 || text[1] != ':' || !take(settings, text[0], text + 2)) {
            say("init: ", path, ": cannot be meant: ", text, NULL);
            return false;
        }
    return true;
}
