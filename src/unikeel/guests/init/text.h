/* Texts without a C library. */
#ifndef TEXT_H
#define TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The compiler calls these by itself. */
void *memset(void *to, int value, size_t size);
void *memcpy(void *to, const void *from, size_t size);

size_t length(const char *text);
bool same(const char *one, const char *other);
bool begins(const char *text, const char *beginning);

/* Append to a buffer of `size` bytes, cutting what does not fit; always ends with NUL. */
void append(char *buffer, size_t size, const char *text);

/* A decimal number of at most ten digits; -1 if the text is none. `rest` (may be NULL) is set to what follows it, which is otherwise an error. */
long number(const char *text, const char **rest);

/* A dotted IPv4 address in network order; false if the text is none. `rest` as of number(). */
bool address(const char *text, uint32_t *result, const char **rest);

/* One line to the console: the texts one after another, NULL ends them. */
void say(const char *first, ...) __attribute__((sentinel));

/* The decimal digits of a number that is not negative, in a buffer that the next call uses again. */
const char *digits(long value);

#endif
