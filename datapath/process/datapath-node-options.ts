import { type MirrorBatches } from '../../core/mirror/batches.ts'
import { type MirrorTiming } from '../../core/mirror/timing.ts'
import { type Coordinator } from '../../core/ports/coordinator.ts'
import { type Random } from '../../core/ports/random.ts'
import { type HostId, type VolumeKey } from '../../core/units.ts'
import { type AttachmentStore } from './attachments.ts'
import { type PeerTransport } from './peer-process.ts'
import { type ReplicaHostOptions } from './replica-host.ts'

/** What a datapath process is made of. */
export interface DatapathNodeOptions extends Omit<ReplicaHostOptions, 'isServing'> {
  readonly random: Random
  readonly coordinator: Coordinator
  readonly timing: MirrorTiming
  /** The shipped ones if not given. */
  readonly batches?: MirrorBatches
  readonly attachments: AttachmentStore
  /** Whether this process is the one of its host that serves a volume. */
  readonly isOurs: (volume: VolumeKey) => boolean
  /** Carries messages to the process of another host that serves a volume there. */
  readonly transport: (host: HostId, volume: VolumeKey) => PeerTransport
  readonly log: (event: string, facts: Readonly<Record<string, string | number>>) => void
}
