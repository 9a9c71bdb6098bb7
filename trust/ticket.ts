import { z } from 'zod'
import { XosanError } from '../core/errors.ts'
import { hostId, srId } from '../rpc/identifiers.ts'

const PREFIX = 'xosan-ticket-1.'
const TEXT_LENGTH_MAX = 8192

const content = z.strictObject({
  sr: srId,
  generation: z.int().min(1),
  /** Who joins. */
  host: hostId,
  /** Who lets in, and where. */
  holder: z.strictObject({
    host: hostId,
    address: z.union([z.ipv4(), z.ipv6()]),
    port: z.int().min(1).max(65_535),
  }),
  /** The only authority that who joins believes, in PEM. */
  authorityPem: z.string().startsWith('-----BEGIN CERTIFICATE-----').max(4096),
  id: z.string().regex(/^[\w-]{11}$/),
  secret: z.string().regex(/^[\w-]{43}$/),
})

/** What the caller carries to the host that joins. Whoever has it within ten minutes may join as that host. */
export type Ticket = z.output<typeof content>

/** One word without spaces. */
export const ticketText = (ticket: Ticket): string =>
  PREFIX + Buffer.from(JSON.stringify(ticket)).toString('base64url')

/** @throws XosanError INVALID_ARGUMENT that does not quote it */
export function parseTicket(text: string): Ticket {
  const what = 'the ticket'
  if (!text.startsWith(PREFIX) || text.length > TEXT_LENGTH_MAX) {
    throw new XosanError('INVALID_ARGUMENT', { what, reason: 'it is none of this version' })
  }
  try {
    return content.parse(JSON.parse(Buffer.from(text.slice(PREFIX.length), 'base64url').toString('utf8')))
  } catch {
    throw new XosanError('INVALID_ARGUMENT', { what, reason: 'it is incomplete or was changed' })
  }
}
