import { z } from 'zod'
import { hostId } from '../rpc/identifiers.ts'
import { type Member } from './members.ts'

/** A member in files, records and messages. */
export const memberSchema = z.strictObject({
  host: hostId,
  admission: z.string().min(1).max(64),
  /** More than the two of a renewal: one that was broken off may leave some. */
  certificates: z.array(z.string().regex(/^[0-9a-f]{64}$/)).max(8),
}) satisfies z.ZodType<Member>
