#include "console.h"

enum {
    COM1 = 0x3f8,
    DATA = COM1,
    INTERRUPT_ENABLE = COM1 + 1,
    LINE_CONTROL = COM1 + 3,
    MODEM_CONTROL = COM1 + 4,
    LINE_STATUS = COM1 + 5,

    LINE_DATA_READY = 0x01,
    LINE_CAN_SEND = 0x20,
    LINE_ALL_SENT = 0x40,

    PIC1 = 0x20,
    PIC2 = 0xa0,
    LOCAL_APIC = 0xfee00000,
    APIC_SPURIOUS = 0x0f0,
    APIC_LINT0 = 0x350,
    APIC_ENABLED = 0x1ff,
    APIC_EXTERNAL = 0x700,

    SERIAL_IRQ = 4,
    PIC1_VECTORS = 0x20,
    PIC2_VECTORS = 0x28,
};

struct gate {
    uint16_t offset_low, selector, flags, offset_high;
} __attribute__((packed));

struct descriptor_table {
    uint16_t limit;
    uint32_t base;
} __attribute__((packed));

static struct gate gates[PIC2_VECTORS];
static const uint64_t segments[] = {0, 0x00cf9b000000ffff, 0x00cf93000000ffff}; /* none, flat code, flat data */

extern void serial_interrupt(void);

/* The FIFOs stay off: switching them on would lose the input that is already there. */
void console_open(void)
{
    out8(INTERRUPT_ENABLE, 0);
    out8(LINE_CONTROL, 0x83); /* 8N1, and the divisor's two bytes in place of data and interrupts: */
    out8(DATA, 1);            /* 115200 baud */
    out8(INTERRUPT_ENABLE, 0);
    out8(LINE_CONTROL, 0x03);
    out8(MODEM_CONTROL, 0x0b); /* ready, and let interrupts through */
}

static void put(char c)
{
    while (!(in8(LINE_STATUS) & LINE_CAN_SEND))
        pause();
    out8(DATA, c);
}

void print(const char *text)
{
    while (*text)
        put(*text++);
}

void print_hex(uint8_t byte)
{
    put("0123456789abcdef"[byte >> 4]);
    put("0123456789abcdef"[byte & 15]);
}

void print_number(uint32_t value)
{
    if (value >= 10)
        print_number(value / 10);
    put('0' + value % 10);
}

void console_drain(void)
{
    while (!(in8(LINE_STATUS) & LINE_ALL_SENT))
        pause();
}

/* Until here no interrupt was needed. Now one is, so that waiting for input costs no processor time: COM1's, by the
 * old interrupt controllers, to a handler which only acknowledges it. */
static void listen(void)
{
    const struct descriptor_table gdt = {sizeof segments - 1, (uint32_t)segments};
    const struct descriptor_table idt = {sizeof gates - 1, (uint32_t)gates};
    const uint32_t handler = (uint32_t)serial_interrupt;

    for (uint32_t i = PIC1_VECTORS; i < PIC2_VECTORS; i++)
        gates[i] = (struct gate){handler & 0xffff, 8, 0x8e00, handler >> 16};
    __asm__ volatile("lgdt %0; lidt %1; ljmp $8, $1f; 1:" : : "m"(gdt), "m"(idt));

    out8(PIC1, 0x11); /* initialise: vectors, the second at line 2 of the first, 8086 mode */
    out8(PIC2, 0x11);
    out8(PIC1 + 1, PIC1_VECTORS);
    out8(PIC2 + 1, PIC2_VECTORS);
    out8(PIC1 + 1, 1 << 2);
    out8(PIC2 + 1, 2);
    out8(PIC1 + 1, 1);
    out8(PIC2 + 1, 1);
    out8(PIC1 + 1, (uint8_t) ~(1 << SERIAL_IRQ));
    out8(PIC2 + 1, 0xff);

    /* Let the processor take them: not every firmware has done that. */
    *(volatile uint32_t *)(LOCAL_APIC + APIC_SPURIOUS) = APIC_ENABLED;
    *(volatile uint32_t *)(LOCAL_APIC + APIC_LINT0) = APIC_EXTERNAL;

    out8(INTERRUPT_ENABLE, 0x01);
}

uint8_t console_read(void)
{
    static bool listening;
    if (!listening)
        listen();
    listening = true;

    /* sti takes effect after the next instruction, so an interrupt between the test and hlt still wakes it. */
    while (!(in8(LINE_STATUS) & LINE_DATA_READY))
        __asm__ volatile("sti; hlt; cli" : : : "memory");
    return in8(DATA);
}
