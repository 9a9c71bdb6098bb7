import { type ByteLength, type ByteOffset } from '../../core/units.ts'
import {
  type BlockDevice,
  type Extent,
  FULL_CAPABILITIES,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../block-device.ts'
import { MirrorDevice } from '../mirror/mirror-device.ts'
import { type VolumeMirror } from '../mirror/volume-mirror.ts'
import { Signal } from '../mirror/signal.ts'

/**
 * The volume behind a guest's socket. It outlives the times that this host is the primary: while it is not, requests
 * wait, because to a guest a wait is harmless and an error is the end of its disk.
 */
export class GuestDevice implements BlockDevice {
  readonly capabilities = FULL_CAPABILITIES
  #size: ByteLength
  #current: MirrorDevice | null = null
  /** The one that served last. */
  #last: VolumeMirror | null = null
  readonly #changed = new Signal()

  /** @param size in bytes */
  constructor(size: ByteLength) {
    this.#size = size
  }

  /** In bytes. A volume that has grown while it was not active shows its new size to connections made from then on. */
  get size(): ByteLength {
    return this.#size
  }

  /** Where requests go now; null while they wait. */
  get current(): MirrorDevice | null {
    return this.#current
  }

  /** The same, as soon as there is one. */
  async serving(): Promise<MirrorDevice> {
    while (this.#current === null) await this.#changed.next()
    return this.#current
  }

  /** From here requests go to this mirror; with null they wait. */
  serve(mirror: VolumeMirror | null): void {
    if (mirror !== null) this.#size = mirror.size
    this.#last = mirror ?? this.#last
    this.#current = mirror === null ? null : new MirrorDevice(mirror, this.#size)
    this.#changed.notify()
  }

  /**
   * Whether what was answered before may be told now: nobody else has the volume, or got it when this host gave it up in
   * order. What is not told waits like what is not answered.
   */
  mayAnswer(): boolean {
    const { phase = 'closed', overtaken = false, requests } = this.#last ?? {}
    return !overtaken && (phase === 'closed' || requests?.promisesHold === true)
  }

  async read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    return (this.#current ?? (await this.serving())).read(offset, into)
  }

  async write(request: WriteRequest): Promise<void> {
    return (this.#current ?? (await this.serving())).write(request)
  }

  async zero(request: ZeroRequest): Promise<void> {
    return (this.#current ?? (await this.serving())).zero(request)
  }

  async trim(request: TrimRequest): Promise<void> {
    return (this.#current ?? (await this.serving())).trim(request)
  }

  async flush(): Promise<void> {
    return (this.#current ?? (await this.serving())).flush()
  }

  async allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    return (this.#current ?? (await this.serving())).allocation(offset, length)
  }

  async close(): Promise<void> {
    await Promise.resolve()
  }
}
