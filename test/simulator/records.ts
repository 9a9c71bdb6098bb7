/** Volume records as checkers read them, which must not stumble over what is none. */
import { parseKey } from '../../cluster/keys.ts'
import { parseVolumeState } from '../../cluster/volume-state.ts'
import { type VolumeState } from '../../core/mirror/volume-record.ts'
import { type VolumeKey } from '../../core/units.ts'

/** The volume whose state is at a key of the coordinator; null for any other key. */
export function volumeOfKey(key: string): VolumeKey | null {
  const parsed = parseKey(key)
  return parsed.kind === 'volume-state' ? parsed.volume : null
}

/** The state of a volume; null for what is none. */
export function tryParseState(key: string, value: string): VolumeState | null {
  try {
    return parseVolumeState(key, value)
  } catch {
    return null
  }
}
