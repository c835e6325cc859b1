/* virtio over MMIO (virtio 1.2, sections 4.2.2 and 4.2.4), where QEMU's microvm has its transports. */
#include "virtqueue.h"

enum {
    FIRST = 0xfeb00000,
    STRIDE = 512,
    COUNT = 24,

    MAGIC = 0x74726976, /* "virt" */
    LEGACY = 1,
    MODERN = 2,
};

/* Registers, as indices into an array of 32-bit words. */
enum {
    REG_MAGIC = 0x000 / 4,
    REG_VERSION = 0x004 / 4,
    REG_DEVICE_ID = 0x008 / 4,
    REG_DRIVER_FEATURES = 0x020 / 4,
    REG_DRIVER_FEATURES_WORD = 0x024 / 4,
    REG_LEGACY_PAGE_SIZE = 0x028 / 4,
    REG_QUEUE = 0x030 / 4,
    REG_QUEUE_SIZE = 0x038 / 4,
    REG_LEGACY_QUEUE_ALIGN = 0x03c / 4,
    REG_LEGACY_QUEUE_PAGE = 0x040 / 4,
    REG_QUEUE_READY = 0x044 / 4,
    REG_NOTIFY = 0x050 / 4,
    REG_STATUS = 0x070 / 4,
    REG_DESCRIPTORS = 0x080 / 4,
    REG_AVAILABLE = 0x090 / 4,
    REG_USED = 0x0a0 / 4,
    REG_CONFIG = 0x100 / 4,
};

static volatile uint32_t *find(void)
{
    for (uint32_t i = 0; i < COUNT; i++) {
        volatile uint32_t *regs = (volatile uint32_t *)(FIRST + i * STRIDE);
        if (regs[REG_MAGIC] == MAGIC && regs[REG_DEVICE_ID] == DEVICE_ID_BLOCK)
            return regs;
    }
    return NULL;
}

static void set_address(volatile uint32_t *pair, const volatile void *memory)
{
    pair[0] = (uint32_t)memory;
    pair[1] = 0;
}

bool mmio_open(struct transport *transport, struct virtqueue *queue)
{
    volatile uint32_t *regs = find();
    if (!regs)
        return false;

    uint32_t status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    regs[REG_STATUS] = 0;
    regs[REG_STATUS] = status;
    regs[REG_DRIVER_FEATURES_WORD] = 0;
    regs[REG_DRIVER_FEATURES] = 0;
    if (regs[REG_VERSION] == MODERN) {
        regs[REG_DRIVER_FEATURES_WORD] = FEATURE_WORD_VERSION_1;
        regs[REG_DRIVER_FEATURES] = FEATURE_VERSION_1;
        regs[REG_STATUS] = status |= STATUS_FEATURES_OK;
    } else {
        regs[REG_LEGACY_PAGE_SIZE] = PAGE;
    }

    regs[REG_QUEUE] = 0;
    regs[REG_QUEUE_SIZE] = QUEUE_SIZE;
    if (regs[REG_VERSION] == MODERN) {
        set_address(regs + REG_DESCRIPTORS, queue->descriptors);
        set_address(regs + REG_AVAILABLE, &queue->available);
        set_address(regs + REG_USED, &queue->used);
        regs[REG_QUEUE_READY] = 1;
    } else {
        regs[REG_LEGACY_QUEUE_ALIGN] = PAGE;
        regs[REG_LEGACY_QUEUE_PAGE] = (uint32_t)queue / PAGE;
    }
    regs[REG_STATUS] = status | STATUS_DRIVER_OK;

    *transport = (struct transport){"virtio-mmio", regs + REG_NOTIFY, regs + REG_CONFIG};
    return true;
}
