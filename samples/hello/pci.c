/* virtio over PCI, by the modern interface (virtio 1.2, section 4.1), which transitional devices have, too. */
#include "virtqueue.h"

enum {
    CONFIG_ADDRESS = 0xcf8,
    CONFIG_DATA = 0xcfc,
    SLOTS = 32,

    /* Offsets in the configuration space (PCI 3.0, chapter 6). */
    PCI_ID = 0x00,
    PCI_COMMAND = 0x04,
    PCI_BARS = 0x10,
    PCI_CAPABILITIES = 0x34,
    COMMAND_MEMORY_AND_MASTER = 0x06,

    BLOCK_TRANSITIONAL = 0x10011af4,
    BLOCK_MODERN = 0x10421af4,

    /* Capabilities (section 4.1.4). */
    CAPABILITY_VENDOR = 0x09,
    AREA_COMMON = 1,
    AREA_NOTIFY = 2,
    AREA_DEVICE = 4,
    AREAS = 5,
};

/* The common configuration (section 4.1.4.3). */
struct common {
    uint32_t device_feature_word, device_features, driver_feature_word, driver_features;
    uint16_t msix_vector, queues;
    uint8_t status, generation;
    uint16_t queue, queue_size, queue_msix_vector, queue_enable, queue_notify_offset;
    uint64_t descriptors, available, used;
};

static uint32_t config_read(int slot, int offset)
{
    out32(CONFIG_ADDRESS, 0x80000000 | slot << 11 | (offset & 0xfc));
    return in32(CONFIG_DATA) >> (offset & 3) * 8;
}

static void config_write(int slot, int offset, uint32_t value)
{
    out32(CONFIG_ADDRESS, 0x80000000 | slot << 11 | offset);
    out32(CONFIG_DATA, value);
}

static int find(void)
{
    for (int slot = 0; slot < SLOTS; slot++) {
        uint32_t id = config_read(slot, PCI_ID);
        if (id == BLOCK_TRANSITIONAL || id == BLOCK_MODERN)
            return slot;
    }
    return -1;
}

/* Note where the areas lie that vendor capabilities speak of; returns what the notify capability adds. */
static uint32_t find_areas(int slot, volatile void *areas[AREAS])
{
    uint32_t multiplier = 0;
    int next = config_read(slot, PCI_CAPABILITIES) & 0xfc;
    for (int n = 0; next && n < 64; n++) {
        int at = next;
        uint32_t head = config_read(slot, at);
        uint32_t type = head >> 24, bar = config_read(slot, at + 4) & 0xff;
        next = head >> 8 & 0xfc;
        if ((head & 0xff) != CAPABILITY_VENDOR || type >= AREAS || bar > 5)
            continue;
        uint32_t base = config_read(slot, PCI_BARS + bar * 4) & ~15u;
        areas[type] = (volatile void *)(base + config_read(slot, at + 8));
        if (type == AREA_NOTIFY)
            multiplier = config_read(slot, at + 16);
    }
    return multiplier;
}

bool pci_open(struct transport *transport, struct virtqueue *queue)
{
    volatile void *areas[AREAS] = {NULL};
    int slot = find();
    if (slot < 0)
        return false;
    config_write(slot, PCI_COMMAND, config_read(slot, PCI_COMMAND) | COMMAND_MEMORY_AND_MASTER);
    uint32_t multiplier = find_areas(slot, areas);
    volatile struct common *common = areas[AREA_COMMON];
    if (!common || !areas[AREA_NOTIFY] || !areas[AREA_DEVICE])
        return false;

    common->status = 0;
    while (common->status)
        pause();
    common->status = STATUS_ACKNOWLEDGE | STATUS_DRIVER;
    common->driver_feature_word = 0;
    common->driver_features = 0;
    common->driver_feature_word = FEATURE_WORD_VERSION_1;
    common->driver_features = FEATURE_VERSION_1;
    common->status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK;

    common->queue = 0;
    common->queue_size = QUEUE_SIZE;
    common->descriptors = (uint32_t)queue->descriptors;
    common->available = (uint32_t)&queue->available;
    common->used = (uint32_t)&queue->used;
    common->queue_enable = 1;
    common->status = STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK;

    volatile uint8_t *doorbell = areas[AREA_NOTIFY];
    doorbell += common->queue_notify_offset * multiplier;
    *transport = (struct transport){"virtio-pci", (volatile uint32_t *)doorbell, areas[AREA_DEVICE]};
    return true;
}
