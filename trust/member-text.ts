import { z } from 'zod'
import { hostId } from '../rpc/identifiers.ts'
import { CERTIFICATES_MAX, type Member } from './members.ts'

/** Of a certificate, as `fingerprintOf` writes it. */
export const fingerprint = z.string().regex(/^[0-9a-f]{64}$/)

/** A member in files, records and messages. */
export const memberSchema = z.strictObject({
  host: hostId,
  admission: z.string().min(1).max(64),
  certificates: z.array(fingerprint).max(CERTIFICATES_MAX),
}) satisfies z.ZodType<Member>
