import { hasCode, XosanError } from '../../core/errors.ts'
import { type SrId, type VolumeKey } from '../../core/units.ts'
import { srId, volumeKey } from '../../rpc/identifiers.ts'
import { type BlockDevice, type BlockDeviceCapabilities, FULL_CAPABILITIES } from '../block-device.ts'
import {
  type ExportDescription,
  type ExportResolver,
  type OpenedExport,
  type OpenRequest,
} from '../nbd-server/export.ts'
import { parseSessionExportName } from '../replica-remote/session-export.ts'
import { requireOurs } from './methods.ts'
import { type ReplicaHost } from './replica-host.ts'

const SESSION_CAPABILITIES: BlockDeviceCapabilities = {
  ...FULL_CAPABILITIES,
  // A session is one ordered stream.
  multiConnection: false,
  sequenced: true,
}

/**
 * What other hosts find on the NBD port: sessions of primaries (`session-export.ts`), and for people with NBD tools
 * `check/<sr>/<volume>`, the replica as it is now, read-only and beside all sessions.
 */
export class PeerExports implements ExportResolver {
  readonly #replicas: ReplicaHost
  readonly #isOurs: (volume: VolumeKey) => boolean

  constructor(replicas: ReplicaHost, isOurs: (volume: VolumeKey) => boolean) {
    this.#replicas = replicas
    this.#isOurs = isOurs
  }

  async open({ name }: OpenRequest): Promise<OpenedExport> {
    const session = parseSessionExportName(name)
    if (session === null) {
      const device = await this.#checkDevice(name)
      return { device, readOnly: true, durability: 'as-asked', closed: () => undefined }
    }
    requireOurs(session.address.volume, this.#isOurs)
    const device = await this.#replicas.openSession(session)
    return {
      device,
      readOnly: false,
      durability: 'as-asked',
      revoked: device.closed,
      closed: ({ detail }) => device.abort(detail),
    }
  }

  async info(name: string): Promise<ExportDescription> {
    const session = parseSessionExportName(name)
    if (session !== null) {
      return { size: session.address.size, readOnly: false, capabilities: SESSION_CAPABILITIES }
    }
    const { size, capabilities } = await this.#checkDevice(name)
    return { size, readOnly: true, capabilities }
  }

  /** Nobody browses: a primary knows the name that it wants. */
  async list(): Promise<readonly string[]> {
    return Promise.resolve([])
  }

  async #checkDevice(name: string): Promise<BlockDevice> {
    const [kind, sr, volume, ...rest] = name.split('/')
    const ids = { sr: srId.safeParse(sr), volume: volumeKey.safeParse(volume) }
    if (kind !== 'check' || rest.length > 0 || !ids.sr.success || !ids.volume.success) {
      throw new XosanError('EXPORT_UNKNOWN', { name })
    }
    return this.#replica(ids.sr.data, ids.volume.data)
  }

  async #replica(sr: SrId, volume: VolumeKey): Promise<BlockDevice> {
    requireOurs(volume, this.#isOurs)
    try {
      return await this.#replicas.reader(sr, volume)
    } catch (error) {
      if (hasCode(error, 'REPLICA_GONE'))
        throw new XosanError('EXPORT_UNKNOWN', { name: volume }, { cause: error })
      throw error
    }
  }
}
