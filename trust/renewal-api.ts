/** What a member asks of the host that holds the authority, over its mutual TLS. */
import { z } from 'zod'
import { fingerprint } from './member-text.ts'
import { CERTIFICATES_MAX } from './members.ts'

const pem = z.string().startsWith('-----BEGIN CERTIFICATE').max(8192)

export const renewalApi = {
  /** A certificate for a new key. It is on the list of members beside the one in use when the answer comes. */
  'trust.renew': {
    params: z.object({ csrPem: pem, inUse: fingerprint }),
    result: z.object({ certificatePem: pem }),
  },
  /** Takes certificates of the caller from the list. Those that are not on it do not matter. */
  'trust.retire': {
    params: z.object({ certificates: z.array(fingerprint).max(CERTIFICATES_MAX) }),
    result: z.null(),
  },
} as const

export type RenewalParams<M extends keyof typeof renewalApi> = z.output<(typeof renewalApi)[M]['params']>
export type RenewalResult<M extends keyof typeof renewalApi> = z.output<(typeof renewalApi)[M]['result']>
