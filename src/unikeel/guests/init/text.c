#include "text.h"
#include "sys.h"

#include <stdarg.h>

enum { LONGEST_LINE = 1024, MOST_DIGITS = 10 };

void *memset(void *to, int value, size_t size)
{
    for (char *byte = to; size--; byte++)
        *byte = (char)value;
    return to;
}

void *memcpy(void *to, const void *from, size_t size)
{
    char *target = to;
    for (const char *byte = from; size--;)
        *target++ = *byte++;
    return to;
}

size_t length(const char *text)
{
    size_t count = 0;
    while (text[count])
        count++;
    return count;
}

bool same(const char *one, const char *other)
{
    while (*one && *one == *other)
        one++, other++;
    return *one == *other;
}

bool begins(const char *text, const char *beginning)
{
    while (*beginning && *text == *beginning)
        text++, beginning++;
    return !*beginning;
}

void append(char *buffer, size_t size, const char *text)
{
    size_t used = length(buffer);
    while (*text && used + 1 < size)
        buffer[used++] = *text++;
    buffer[used] = 0;
}

long number(const char *text, const char **rest)
{
    long value = 0;
    int count = 0;
    for (; *text >= '0' && *text <= '9'; text++, count++) {
        if (count == MOST_DIGITS)
            return -1;
        value = value * 10 + (*text - '0');
    }
    if (rest)
        *rest = text;
    return count && (rest || !*text) ? value : -1;
}

bool address(const char *text, uint32_t *result, const char **rest)
{
    uint32_t value = 0;
    for (int part = 0; part < 4; part++) {
        if (part && *text++ != '.')
            return false;
        long byte = number(text, &text);
        if (byte < 0 || byte > 255)
            return false;
        value |= (uint32_t)byte << (8 * part);
    }
    *result = value;
    if (rest)
        *rest = text;
    return rest || !*text;
}

void say(const char *first, ...)
{
    char line[LONGEST_LINE] = "";
    va_list rest;
    va_start(rest, first);
    for (const char *text = first; text; text = va_arg(rest, const char *))
        append(line, sizeof line - 1, text);
    va_end(rest);
    append(line, sizeof line, "\n");
    CALL3(write, 1, line, length(line));
}

const char *digits(long value)
{
    static char buffer[24];
    char *digit = buffer + sizeof buffer - 1;
    *digit = 0;
    do
        *--digit = (char)('0' + value % 10);
    while ((value /= 10) > 0 && digit > buffer);
    return digit;
}
