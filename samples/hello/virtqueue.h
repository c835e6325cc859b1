/* A split virtqueue (virtio 1.2, section 2.7), laid out as the legacy interface wants it: one contiguous piece of
 * memory whose used ring begins on a page of its own. The modern interface takes any layout, so also this one. */
#ifndef VIRTQUEUE_H
#define VIRTQUEUE_H

#include "io.h"

enum {
    QUEUE_SIZE = 4, /* a power of two; one request needs three descriptors */
    PAGE = 4096,

    DESCRIPTOR_NEXT = 1,
    DESCRIPTOR_DEVICE_WRITES = 2,
};

struct virtqueue {
    struct descriptor {
        uint64_t address;
        uint32_t length;
        uint16_t flags, next;
    } descriptors[QUEUE_SIZE];
    struct {
        uint16_t flags, index, ring[QUEUE_SIZE];
    } available;
    struct {
        uint16_t flags, index;
        struct {
            uint32_t id, length;
        } ring[QUEUE_SIZE];
    } used __attribute__((aligned(PAGE)));
} __attribute__((aligned(PAGE)));

/* Device status bits (section 2.1) and the one feature that a modern driver must accept (section 6). */
enum {
    STATUS_ACKNOWLEDGE = 1,
    STATUS_DRIVER = 2,
    STATUS_DRIVER_OK = 4,
    STATUS_FEATURES_OK = 8,

    DEVICE_ID_BLOCK = 2,
    FEATURE_WORD_VERSION_1 = 1, /* VIRTIO_F_VERSION_1 is bit 32: bit 0 of the second word */
    FEATURE_VERSION_1 = 1,
};

/* What a transport finds out: where to ring, where the device's own configuration is. */
struct transport {
    const char *name;
    volatile uint32_t *doorbell;      /* write the queue's number */
    const volatile uint32_t *config;  /* struct virtio_blk_config; begins with the capacity in sectors, 64 bits */
};

/* Both search for a disk, give it the queue and set it going; false if there is none to be found their way. */
bool mmio_open(struct transport *transport, struct virtqueue *queue);
bool pci_open(struct transport *transport, struct virtqueue *queue);

#endif
