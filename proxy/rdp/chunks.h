/*
 * Messages of a static virtual channel come in chunks, 3.1.5.2.2 of [MS-RDPBCGR]. Where policy has
 * to know what a message is, it is judged by its first chunk: most go on chunk by chunk as they
 * come, those that must be read whole are held until they are. Pure but for the memory of what is
 * held; what breaks the order of chunks is dropped up to the end of its message, since receivers
 * differ in what they make of it.
 */
#ifndef RDP_CHUNKS_H
#define RDP_CHUNKS_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/rdp/wire.h"

#define CHUNKS_HELD_MAX 32768u /* bytes of a message that is read whole */
#define CHUNKS_PIECE    1600u  /* bytes of a chunk that we write: CHANNEL_CHUNK_LENGTH */

enum chunks_verdict { CHUNKS_PASS, CHUNKS_DROP, CHUNKS_WHOLE };
enum chunks_state { CHUNKS_IDLE, CHUNKS_PASSING, CHUNKS_DROPPING, CHUNKS_HOLDING };

struct chunks {
    enum chunks_state state;
    struct buffer held;
};

void chunks_init(struct chunks *c);
void chunks_finish(struct chunks *c);

/* What becomes of the message that begins so; is_all: and ends so. */
typedef enum chunks_verdict (*chunks_judge_fn)(struct cursor begin, bool is_all);

/*
 * data: of one MCS PDU, CHANNEL_PDU_HEADER included. PASS: it may go on as it is. DROP: it may not;
 * it is held, or nonsense, or compressed. WHOLE: nor may it, and *whole is the message that it
 * ends, borrowed until the next call.
 */
enum chunks_verdict chunks_take(struct chunks *c, struct cursor data, chunks_judge_fn judge,
                                struct cursor *whole);

/* A client's message on rdpdr: announcements of devices are read whole; devices.c. */
enum chunks_verdict devices_judge(struct cursor begin, bool is_all);

/* A message as frames of MCS; type is MCS_DATA_REQUEST or MCS_DATA_INDICATION. */
void chunks_put(struct buffer *b, enum mcs_type type, uint16_t user, uint16_t channel,
                struct cursor message);

#endif
