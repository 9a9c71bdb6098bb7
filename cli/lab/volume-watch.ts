import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { XosanError } from '../../core/errors.ts'
import { type VolumeSummary } from '../../rpc/control-api.ts'
import { DaemonClient } from '../daemon-client.ts'
import { type PoolHost, type PoolVolume } from './pool.ts'

const POLL_MS = 100

/** What the xosand of a host knows about a volume. */
export async function showVolume(host: PoolHost, volume: PoolVolume): Promise<VolumeSummary> {
  const daemon = new DaemonClient(host.controlSocket)
  try {
    return await daemon.call('volume.show', { volume: volume.key })
  } finally {
    daemon.close()
  }
}

/**
 * Waits until every replica of a volume is in-sync.
 *
 * @param host whose xosand is asked
 * @param watch called with what each look showed
 * @throws XosanError DEADLINE_EXCEEDED naming the replicas that are not
 */
export async function waitUntilInSync(
  host: PoolHost,
  volume: PoolVolume,
  deadlineMs: number,
  watch: (shown: VolumeSummary) => void = () => undefined
): Promise<VolumeSummary> {
  const end = performance.now() + deadlineMs
  for (;;) {
    const shown = await showVolume(host, volume)
    watch(shown)
    const others = shown.replicas.filter(({ state }) => state !== 'in-sync')
    if (others.length === 0) return shown
    if (performance.now() >= end) {
      const names = others.map(({ hostName, state }) => `${hostName} is ${state}`).join(', ')
      throw new XosanError('DEADLINE_EXCEEDED', {
        what: `Bringing the replicas of ${volume.key} together (${names})`,
        deadlineMs,
      })
    }
    await delay(POLL_MS)
  }
}

/**
 * The raw files of a volume's replicas, one per host that has one.
 *
 * @param paths the SR's `path`, or of each host the one that is its default
 */
export async function replicaFiles(
  paths: string | readonly string[],
  volume: PoolVolume
): Promise<Map<string, string>> {
  const files = new Map<string, string>()
  for (const path of typeof paths === 'string' ? [paths] : paths) {
    const root = join(path, 'xosan', volume.sr)
    for (const host of await readdir(root)) {
      const names = await readdir(join(root, host), { recursive: true })
      const raw = names.find(name => name.includes(volume.key) && name.endsWith('.raw'))
      if (raw !== undefined) files.set(host, join(root, host, raw))
    }
  }
  return files
}
