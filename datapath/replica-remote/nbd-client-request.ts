import { type XosanError } from '../../core/errors.ts'
import { type Extent } from '../block-device.ts'

/** One request from its call to its reply. */
export interface ClientRequest {
  readonly command: number
  readonly flags: number
  readonly offset: number
  readonly length: number
  /** Position in the session's order of changes; 0 for what has none. */
  readonly sequence: number
  /** Of a READ: filled as its data come in. */
  readonly into: Uint8Array | null
  /** Of a WRITE. */
  readonly data: Uint8Array | null
  /** Bytes that it keeps under way. */
  readonly cost: number
  /** Reading of the clock at the call. */
  readonly since: number
  readonly done: (extents: readonly Extent[]) => void
  readonly failed: (error: XosanError) => void
  /** Parts of the buffer that have come, by their first byte; more than one only if the server cuts its reply up. */
  parts: { readonly from: number; readonly to: number }[]
  extents: readonly Extent[]
  /** Set by an error chunk; the request fails when its last chunk has come. */
  error: XosanError | null
}

/**
 * Whether the parts of a reply to READ make up the whole buffer, each byte once.
 * A server that sends one part twice and leaves out another would else hand us whatever was in the buffer.
 */
export function isComplete(request: ClientRequest): boolean {
  if (request.parts.length > 1) request.parts.sort((a, b) => a.from - b.from)
  let at = 0
  for (const { from, to } of request.parts) {
    if (from !== at) return false
    at = to
  }
  return at === request.length
}
