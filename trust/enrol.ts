import { createPublicKey, X509Certificate } from 'node:crypto'
import { connect } from 'node:tls'
import { XosanError } from '../core/errors.ts'
import { type Clock } from '../core/ports/clock.ts'
import { RpcClient } from '../rpc/client.ts'
import { createHostKey, HOST_CERTIFICATE_DAYS } from './authority.ts'
import { certificateFacts } from './certificate.ts'
import { enrolmentApi } from './enrolment-api.ts'
import { identityUri } from './identity.ts'
import { type Member } from './members.ts'
import { type Ticket } from './ticket.ts'
import { type HostCredentials } from './trust-directory.ts'

const DAY_MS = 86_400_000
/** By how much the clocks of two hosts may differ, in days of the certificate's life. */
const CLOCK_DIFFERENCE_DAYS = 2

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
    check(credentials, authorityPem, now)
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

/** Checks what was given before anything is kept. */
function check({ identity, certificatePem, keyPem }: HostCredentials, authorityPem: string, now: Date): void {
  const facts = certificateFacts(certificatePem)
  if (facts?.identity == null || identityUri(facts.identity) !== identityUri(identity)) {
    throw refused('the certificate is not for this host')
  }
  const certificate = new X509Certificate(certificatePem)
  const authority = new X509Certificate(authorityPem)
  if (!certificate.verify(authority.publicKey))
    throw refused("the certificate is not of the ticket's authority")
  if (!certificate.publicKey.equals(createPublicKey(keyPem)))
    throw refused('the certificate is of another key')
  const daysLeft = (facts.notAfter.getTime() - now.getTime()) / DAY_MS
  if (Math.abs(daysLeft - HOST_CERTIFICATE_DAYS) > CLOCK_DIFFERENCE_DAYS) {
    throw refused(`the certificate ends in ${daysLeft.toFixed(0)} days: the clocks of the two hosts differ`)
  }
}

const refused = (reason: string): XosanError => new XosanError('ENROLMENT_REFUSED', { reason })
