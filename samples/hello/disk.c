#include "disk.h"
#include "virtqueue.h"

enum {
    REQUEST_READ = 0,
    RESULT_OK = 0,
    PATIENCE = 1 << 26, /* turns of a busy loop: seconds at the least */
};

static struct transport transport;
static volatile struct virtqueue queue;

const char *disk_open(void)
{
    /* MMIO is only probed where there is no PCI bus: its addresses may be another device's there. */
    struct virtqueue *memory = (struct virtqueue *)&queue;
    if (pci_open(&transport, memory) || mmio_open(&transport, memory))
        return transport.name;
    return NULL;
}

uint32_t disk_sectors(void)
{
    return transport.config[1] ? UINT32_MAX : transport.config[0];
}

bool disk_read(uint32_t sector, void *buffer, uint32_t bytes)
{
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } request = {REQUEST_READ, 0, sector};
    volatile uint8_t result = 0xff;

    queue.descriptors[0] = (struct descriptor){(uint32_t)&request, sizeof request, DESCRIPTOR_NEXT, 1};
    queue.descriptors[1] = (struct descriptor){(uint32_t)buffer, bytes, DESCRIPTOR_NEXT | DESCRIPTOR_DEVICE_WRITES, 2};
    queue.descriptors[2] = (struct descriptor){(uint32_t)&result, sizeof result, DESCRIPTOR_DEVICE_WRITES, 0};
    queue.available.ring[queue.available.index % QUEUE_SIZE] = 0;
    barrier();
    queue.available.index++;
    barrier();
    *transport.doorbell = 0;

    for (int turn = 0; queue.used.index != queue.available.index && turn < PATIENCE; turn++)
        pause();
    barrier();
    return result == RESULT_OK;
}
