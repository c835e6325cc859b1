/* The little of protobuf and ttrpc that the launcher speaks. Every length is checked; whatever fails leaves a sentence in `trouble`. */
#ifndef UNIKEEL_WIRE_H
#define UNIKEEL_WIRE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MAX ((size_t)4 << 20) /* of a frame's body: ttrpc's own limit */
#define SECOND INT64_C(1000000000)

typedef struct {
    const uint8_t *data;
    size_t size;
} Slice;

/* Bytes that grow up to `limit`. `failed`: more was wanted, or memory ran out; nothing is added any more. */
typedef struct {
    uint8_t *data;
    size_t size, room, limit;
    bool failed;
} Bytes;

typedef struct {
    uint32_t number, type;
    uint64_t value; /* types 0, 1 and 5 */
    Slice bytes;    /* type 2 */
} Field;

/* What became of a call. AWAY: nobody is there, or went before the answer was whole. BROKEN: what came is no answer.
 * REFUSED: an error was answered. */
typedef enum { ANSWERED, AWAY, LATE, BROKEN, REFUSED } Outcome;

extern char trouble[1024];

void explain(const char *format, ...) __attribute__((format(printf, 1, 2)));
int64_t now(void);

void add(Bytes *to, const void *data, size_t size);
void add_bytes(Bytes *to, uint32_t field, const void *data, size_t size);
void add_text(Bytes *to, uint32_t field, const char *text);
void add_number(Bytes *to, uint32_t field, uint64_t value);

/* The next field of a message: 1, or 0 at its end, or -1 if it is malformed. */
int next_field(Slice *rest, Field *field);

/* A connection to a unix socket, or -1 and errno. */
int dial(const char *path, int64_t deadline);
/* One unary call; `answer` gets the response's payload. */
Outcome call(int fd, const char *service, const char *method, const Bytes *request, int64_t deadline, Bytes *answer);

#endif
