import { z } from 'zod'
import { VOLUME_SIZE_MULTIPLE, type SrId, type VolumeKey } from '../core/units.ts'
import { srId, volumeKey } from '../rpc/identifiers.ts'
import { type Json } from '../rpc/wire.ts'
import { type VolumeContext } from './context.ts'
import { type Deadline } from './deadline.ts'

/** Parameters by name, in the order in which they stand on the command line. */
type Parameters = Readonly<Record<string, z.ZodType>>
type Arguments<P extends Parameters> = { readonly [K in keyof P]: z.output<P[K]> }

/** One call of SMAPIv3: its parameters, the time it may take, and what it does. */
export interface SmapiCall {
  readonly parameters: Parameters
  readonly deadlineMs: number
  readonly answer: (context: VolumeContext, args: never, deadline: Deadline) => Promise<Json>
}

/** Ties the types of parameters and handler together. */
export const defineCall = <const P extends Parameters>(
  deadlineMs: number,
  parameters: P,
  answer: (context: VolumeContext, args: Arguments<P>, deadline: Deadline) => Promise<Json>
): SmapiCall => ({ parameters, deadlineMs, answer })

/** Longest name, description or value that is kept: records must stay small. xapi's own are far shorter. */
const TEXT_LENGTH_MAX = 65_536

export const text = z.string().max(TEXT_LENGTH_MAX)
export const sr = srId
export const key = volumeKey
export const domain = z.string().max(256)
/** Yes or no; on a command line also an option without a value. */
export const flag = z.union([
  z.boolean(),
  z.literal('true').transform(() => true),
  z.literal('false').transform(() => false),
])

/** device-config and its like; values that are not strings would not survive xapi's database. */
export const configuration = z.record(z.string(), text)

/**
 * Size in bytes. int64 comes as a number or as decimal digits. The limit is what the files of a replica can hold
 * with room to spare; beyond it a size is a mistake.
 */
const VOLUME_BYTES_MAX = 64 * 2 ** 40
export const size = z
  .union([
    z.number(),
    z
      .string()
      .regex(/^\d{1,19}$/, 'not a whole number')
      .transform(Number),
  ])
  .pipe(
    z
      .number()
      .int()
      .min(0)
      .max(VOLUME_BYTES_MAX - VOLUME_SIZE_MULTIPLE)
  )

/** `xosan://<sr>/<volume>`: the scheme names the datapath plugin, whose folder is called the same. */
export const uri = z.string().transform((value, issues): { sr: SrId; volume: VolumeKey } => {
  const parts = /^xosan:\/\/([^/]+)\/([^/]+)$/.exec(value)
  const parsed = z.tuple([srId, volumeKey]).safeParse(parts?.slice(1))
  if (parsed.success) return { sr: parsed.data[0], volume: parsed.data[1] }
  issues.addIssue({ code: 'custom', message: 'must look like xosan://<sr uuid>/<volume uuid>' })
  return z.NEVER
})

export const uriOf = (ofSr: SrId, volume: VolumeKey): string => `xosan://${ofSr}/${volume}`
