import { connect } from 'node:tls'
import { XosanError } from '../core/errors.ts'
import { type Clock } from '../core/ports/clock.ts'
import { RpcClient } from '../rpc/client.ts'
import { createHostKey } from './authority.ts'
import { certificateFacts } from './certificate.ts'
import { enrolmentApi } from './enrolment-api.ts'
import { identityUri } from './identity.ts'
import { troubleWith } from './issued-certificate.ts'
import { type Member } from './members.ts'
import { type Ticket } from './ticket.ts'
import { type HostCredentials } from './trust-directory.ts'

interface EnrolOptions {
  readonly clock: Clock
  /** For all of it, in milliseconds. */
  readonly deadlineMs: number
  /** The time of day. */
  readonly now: Date
}

/**
 * Makes this host a member: makes its key, which stays here, and has it certified by the host that the ticket names.
 *
 * @returns what is to be kept in the trust directory, and the members
 * @throws XosanError ENROLMENT_REFUSED by the other side, or because what it gave is not what the ticket promises;
 *   PEER_NOT_TRUSTED, PEER_UNREACHABLE, DEADLINE_EXCEEDED
 */
export async function enrol(
  ticket: Ticket,
  { clock, deadlineMs, now }: EnrolOptions
): Promise<{ readonly credentials: HostCredentials; readonly members: readonly Member[] }> {
  const { sr, generation, host, holder, authorityPem, id, secret } = ticket
  const { keyPem, csrPem } = await createHostKey()
  const client = new RpcClient({
    address: { host: holder.address, port: holder.port },
    clock,
    dialer: {
      connect: address =>
        connect({
          ...address,
          ca: authorityPem,
          minVersion: 'TLSv1.3',
          rejectUnauthorized: true,
          checkServerIdentity: (_, { raw }) => holderTrouble(ticket, raw),
        }),
    },
    unreachable: reason => new XosanError('PEER_UNREACHABLE', { host: holder.host, reason }),
  })
  try {
    const { result } = enrolmentApi['trust.enrol']
    const answer = await client.call('trust.enrol', { id, secret, csrPem }, result, { deadlineMs })
    const identity = { sr, generation, host }
    const credentials = { ...answer, identity, keyPem }
    const trouble = troubleWith(credentials, authorityPem, now)
    if (trouble !== null) throw refused(trouble)
    const { certificatePem, authoritiesPem, members } = answer
    return { credentials: { identity, keyPem, certificatePem, authoritiesPem }, members }
  } finally {
    client.close()
  }
}

/** Why the other end, which has a certificate of the ticket's authority, is not the host that the ticket names. */
function holderTrouble({ sr, generation, holder }: Ticket, certificate: Buffer): Error | undefined {
  const identity = certificateFacts(certificate)?.identity
  const expected = identityUri({ sr, generation, host: holder.host })
  if (identity != null && identityUri(identity) === expected) return undefined
  return new XosanError('PEER_NOT_TRUSTED', { host: holder.host, reason: 'another host answered' })
}

const refused = (reason: string): XosanError => new XosanError('ENROLMENT_REFUSED', { reason })
