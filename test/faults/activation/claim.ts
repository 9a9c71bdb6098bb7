import { XosanError } from '../../../core/errors.ts'
import { setTimeout as delay } from 'node:timers/promises'
import { type NbdAddress, connectDisk } from '../../../cli/lab/guest-disk.ts'
import { byteOffset } from '../../../core/units.ts'

/** One acknowledged write of a host that believes that it serves the volume. */
export interface AcknowledgedWrite {
  readonly host: string
  readonly sentAt: number
  readonly acknowledgedAt: number
}

/** A write that takes longer than this is being held: its host does not serve now. */
const HELD_MS = 300
const PAUSE_MS = 5

/**
 * Writes to the volume through one host, again and again, until told to stop, and notes what was acknowledged.
 * Writes that are held or fail are what a host that was replaced is supposed to do.
 */
export async function claim(
  host: string,
  address: NbdAddress,
  stop: AbortSignal
): Promise<AcknowledgedWrite[]> {
  const acknowledged: AcknowledgedWrite[] = []
  const disk = await connectDisk(address).catch(() => null)
  if (disk === null) return acknowledged
  const stopped = new Promise<void>(resolve => {
    if (stop.aborted) resolve()
    stop.addEventListener('abort', () => resolve(), { once: true })
  })
  try {
    while (!stop.aborted) {
      const data = new Uint8Array(512).fill(host.charCodeAt(host.length - 1))
      const sentAt = performance.now()
      const write = disk.write({ offset: byteOffset(0), data, durable: true }).then(
        () => acknowledged.push({ host, sentAt, acknowledgedAt: performance.now() }),
        () => undefined
      )
      await Promise.race([write, stopped])
      await Promise.race([delay(PAUSE_MS), stopped])
    }
    return acknowledged
  } finally {
    // A held write would keep an orderly close waiting for as long as it is held.
    await Promise.race([disk.close().catch(() => undefined), delay(HELD_MS)])
    disk.abort(new XosanError('PEER_UNREACHABLE', { host, reason: 'the drill has ended' }))
  }
}

/**
 * Whether two hosts had the right to write at one time. The right may pass on once, from a host that was paused to
 * another one, and an answer may come late; but when one host's write lies wholly between two of another host's,
 * the right has come back to that one without an activation.
 *
 * @param writes of all hosts in one round
 * @returns the sentence for the report, or null
 */
export function findTwoWriters(writes: readonly AcknowledgedWrite[]): string | null {
  const spans = new Map<string, { firstAnswer: number; lastSent: number }>()
  for (const { host, sentAt, acknowledgedAt } of writes) {
    const span = spans.get(host) ?? { firstAnswer: Infinity, lastSent: -Infinity }
    spans.set(host, {
      firstAnswer: Math.min(span.firstAnswer, acknowledgedAt),
      lastSent: Math.max(span.lastSent, sentAt),
    })
  }
  for (const { host, sentAt, acknowledgedAt } of writes) {
    for (const [other, { firstAnswer, lastSent }] of spans) {
      if (other !== host && firstAnswer < sentAt && acknowledgedAt < lastSent) {
        return `${other} wrote, then ${host}, then ${other} again`
      }
    }
  }
  return null
}
