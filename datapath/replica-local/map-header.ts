/**
 * The first page of a map file: one line that says what the file is, one line of JSON that says whose, zeros up to
 * the end of the page. Written at creation and never again, so that no crash can tear it later; text, so that
 * `head -2` answers an administrator with a rescue disk.
 */
import { z } from 'zod'
import { crc32 } from 'node:zlib'
import { XosanError } from '../../core/errors.ts'
import { BLOCK_BYTES, REGION_BYTES } from '../../core/units.ts'
import { HEADER_BYTES } from './map-layout.ts'

const FORMAT_VERSION = 1

const schema = z.strictObject({
  kind: z.enum(['map', 'live']),
  volume: z.string(),
  replica: z.string(),
  layer: z.string(),
  blockBytes: z.literal(BLOCK_BYTES),
  regionBytes: z.literal(REGION_BYTES),
})

/** Whose map a file is. */
export type MapHeader = Pick<z.infer<typeof schema>, 'kind' | 'volume' | 'replica' | 'layer'>

/** The page that starts a map file. */
export function encodeMapHeader(header: MapHeader): Buffer {
  const json = JSON.stringify({ ...header, blockBytes: BLOCK_BYTES, regionBytes: REGION_BYTES })
  const page = Buffer.alloc(HEADER_BYTES)
  page.write(`xosan-map ${FORMAT_VERSION} ${checksum(json)}\n${json}\n`, 'utf8')
  return page
}

/**
 * Reads the page that starts a map file.
 * @param path of the file, for messages
 * @throws UNSUPPORTED when a newer version wrote it; REPLICA_CORRUPT when it is damaged
 */
export function decodeMapHeader(page: Buffer, path: string): MapHeader {
  const match = /^xosan-map (\d+) ([0-9a-f]{8})\n(.*)\n\0*$/.exec(page.toString('utf8'))
  if (match === null)
    throw new XosanError('REPLICA_CORRUPT', { path, reason: 'its header is not one of a map' })
  const [, version, sum, json = ''] = match
  if (Number(version) > FORMAT_VERSION) {
    throw new XosanError('UNSUPPORTED', {
      what: `version ${String(version)} of map file ${path}`,
      reason: `this XOSAN reads version ${FORMAT_VERSION}`,
    })
  }
  if (Number(version) !== FORMAT_VERSION || sum !== checksum(json)) {
    throw new XosanError('REPLICA_CORRUPT', { path, reason: 'the checksum of its header does not match' })
  }
  const parsed = schema.safeParse(JSON.parse(json))
  if (!parsed.success) {
    throw new XosanError('REPLICA_CORRUPT', { path, reason: z.prettifyError(parsed.error) })
  }
  return parsed.data
}

const checksum = (json: string): string => crc32(json).toString(16).padStart(8, '0')
