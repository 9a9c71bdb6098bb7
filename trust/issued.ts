import { z } from 'zod'
import { type HostId } from '../core/units.ts'
import { hostId } from '../rpc/identifiers.ts'

/** A certificate that left, or was about to leave, the host of the authority. */
export interface IssuedCertificate {
  readonly serial: string
  /** Null: by an authority of before, which has revoked it. */
  readonly host: HostId | null
  readonly notAfter: Date
  readonly revoked: boolean
}

/** Such a list in its file. */
export const issuedSchema = z.strictObject({
  version: z.literal(1),
  issued: z.array(
    z.strictObject({
      serial: z.string().regex(/^[0-9a-f]{2,40}$/),
      host: hostId.nullable(),
      notAfter: z.iso.datetime().transform(text => new Date(text)),
      revoked: z.boolean(),
    })
  ),
})

export const issuedText = (issued: readonly IssuedCertificate[]): string =>
  `${JSON.stringify({ version: 1, issued })}\n`

/** Those of a host that somebody could still use: a clock that jumped ahead must not make the list forget any. */
export const usableOf = (
  issued: readonly IssuedCertificate[],
  host: HostId,
  now: Date
): readonly IssuedCertificate[] =>
  issued.filter(each => each.host === host && !each.revoked && each.notAfter > now)

/** Marks every certificate that a host was ever given. */
export const revokeAllOf = (
  issued: readonly IssuedCertificate[],
  host: HostId
): readonly IssuedCertificate[] =>
  issued.map(each => (each.host === host ? { ...each, revoked: true } : each))
