/* The console: the first serial port (COM1). */
#ifndef CONSOLE_H
#define CONSOLE_H

#include "io.h"

void console_open(void);
void print(const char *text);
void print_hex(uint8_t byte);
void print_number(uint32_t value);

/* Wait until everything written has left the port. */
void console_drain(void);

/* The next byte of input; the processor sleeps until there is one. */
uint8_t console_read(void);

#endif
