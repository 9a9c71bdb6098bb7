import { z } from 'zod'
import { type Wait } from '../core/mirror/waits.ts'
import { millis } from '../core/units.ts'
import { count, hostId, replicaId } from './identifiers.ts'

const place = { host: hostId, replica: replicaId }

/** What a volume waits for, as `core/mirror/waits.ts` explains it. */
const wait = z.discriminatedUnion('for', [
  z.object({ for: z.literal('replica'), ...place, reason: z.string(), othersLost: z.boolean() }),
  z.object({ for: z.literal('disk'), ...place, isFull: z.boolean(), reason: z.string() }),
  z.object({ for: z.literal('promise'), ...place }),
  z.object({
    for: z.literal('end-of-promise'),
    ...place,
    holder: hostId.nullable(),
    remainingMs: z.number().transform(value => millis(value)),
  }),
  z.object({ for: z.literal('coordinator'), reason: z.string() }),
  z.object({ for: z.literal('reconcile'), regions: count }),
  z.object({ for: z.literal('deactivation'), primary: hostId.nullable() }),
]) satisfies z.ZodType<Wait>

/** Only shown to people: what another version says in other words must not make the rest of an answer unreadable. */
export const waits = z.array(wait).catch([])
