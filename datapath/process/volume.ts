import { type Purpose } from '../../core/mirror/messages.ts'
import { type SrId, type VolumeKey } from '../../core/units.ts'
import { Mutex } from '../mirror/signal.ts'
import { type VolumeMirror } from '../mirror/volume-mirror.ts'
import { type GuestDevice } from './guest-device.ts'

/** A volume as this process knows it. */
export interface ServedVolume {
  readonly sr: SrId
  readonly volume: VolumeKey
  readonly device: GuestDevice | null
  readonly mirror: VolumeMirror | null
}

/** What a datapath process keeps of a volume while it is attached, open, or asked for. */
export class Volume {
  readonly sr: SrId
  readonly key: VolumeKey
  readonly turn = new Mutex()
  device: GuestDevice | null = null
  mirror: VolumeMirror | null = null
  purpose: Purpose = 'guest'
  /** The opening under way, which goes on when its caller has given up. */
  opening: Promise<void> | null = null
  /** Actions that have the turn or wait for it. */
  actions = 0

  constructor(sr: SrId, key: VolumeKey) {
    this.sr = sr
    this.key = key
  }
}

export const servedOf = ({ sr, key, device, mirror }: Volume): ServedVolume => ({
  sr,
  volume: key,
  device,
  mirror,
})
