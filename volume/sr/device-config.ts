import { isAbsolute, normalize } from 'node:path'
import { z } from 'zod'
import { XosanError } from '../../core/errors.ts'
import { type SrId } from '../../core/units.ts'
import { type HeadroomRecord, type SrRecord } from '../../cluster/records.ts'
import { issuesOf } from '../../rpc/wire.ts'

/** Survives the loss of one host, at twice the space. */
const COPIES_DEFAULT = 2
/** Space for what thin volumes write between a warning and somebody's reaction to it. */
const HEADROOM_DEFAULT = '10%'

const KNOWN = ['path', 'copies', 'headroom'] as const

const path = z
  .string()
  .refine(isAbsolute, 'must be an absolute path')
  .refine(value => value === normalize(value), 'must be written without `.`, `..` and double slashes')

const copies = z
  .string()
  .regex(/^[1-9]\d?$/, 'must be a whole number from 1')
  .transform(Number)

const headroom = z.string().transform((value, issues): HeadroomRecord => {
  const percent = /^(\d{1,2}(?:\.\d+)?)%$/.exec(value)
  if (percent !== null) return { unit: 'fraction', amount: Number(percent[1]) / 100 }
  if (/^\d{1,16}$/.test(value) && Number.isSafeInteger(Number(value))) {
    return { unit: 'bytes', amount: Number(value) }
  }
  issues.addIssue({ code: 'custom', message: 'must be a percentage below 100% or a number of bytes' })
  return z.NEVER
})

const schema = z.object({
  path: path.optional(),
  copies: copies.prefault(String(COPIES_DEFAULT)),
  headroom: headroom.prefault(HEADROOM_DEFAULT),
})

/**
 * Reads the device-config given to SR.create.
 *
 * @throws XosanError INVALID_ARGUMENT, also for keys that are not known: a misspelt one must not go unnoticed
 */
export function parseDeviceConfig(
  deviceConfig: Readonly<Record<string, string>>,
  uuid: SrId
): SrRecord['configuration'] {
  const { sr_uuid: given, ...rest } = deviceConfig
  if (given !== undefined && given !== uuid) {
    throw new XosanError('INVALID_ARGUMENT', { what: 'sr_uuid', reason: `it is not the SR's own, ${uuid}` })
  }
  const unknown = Object.keys(rest).filter(name => !(KNOWN as readonly string[]).includes(name))
  if (unknown.length > 0) {
    throw new XosanError('INVALID_ARGUMENT', {
      what: 'The device-config',
      reason: `unknown key ${unknown.join(', ')}; known are ${KNOWN.join(', ')}`,
    })
  }
  const parsed = schema.safeParse(rest)
  if (!parsed.success) {
    throw new XosanError('INVALID_ARGUMENT', { what: 'The device-config', reason: issuesOf(parsed.error) })
  }
  const { path: givenPath, ...others } = parsed.data
  return givenPath === undefined ? others : { ...others, path: givenPath }
}

/** The device_config that every PBD of an SR has: all that SR.attach is given, on any host. */
export function deviceConfigOf(record: SrRecord): Record<string, string> {
  const { path: directory, copies: count, headroom: keep } = record.configuration
  return {
    sr_uuid: record.sr,
    ...(directory === undefined ? {} : { path: directory }),
    copies: String(count),
    headroom: keep.unit === 'fraction' ? `${Number((keep.amount * 100).toFixed(6))}%` : String(keep.amount),
  }
}
