/** The one call that a host without a certificate may make. */
import { z } from 'zod'
import { memberSchema } from './member-text.ts'

/** PEM of a request or certificate. */
const pem = z.string().startsWith('-----BEGIN CERTIFICATE').max(8192)

export const enrolmentApi = {
  'trust.enrol': {
    params: z.object({ id: z.string().max(64), secret: z.string().max(64), csrPem: pem }),
    result: z.object({
      certificatePem: pem,
      authoritiesPem: pem,
      /** So that the host knows whom to talk to before it has reached the coordinator. */
      members: z.array(memberSchema),
    }),
  },
} as const
