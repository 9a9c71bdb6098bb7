import { XosanError } from '../../core/errors.ts'
import { type ByteLength, type ByteOffset } from '../../core/units.ts'
import { type Extent, type TrimRequest, type WriteRequest, type ZeroRequest } from '../block-device.ts'
import { PassThroughDevice } from '../filters/pass-through.ts'
import { type MirrorDevice } from '../mirror/mirror-device.ts'
import { type GuestDevice } from './guest-device.ts'

/**
 * One connection's view of a volume. A request may wait at the device for hours, until this host is the primary
 * again; when the connection is broken off meanwhile, its requests end here, so that it can be forgotten. None of those
 * that wait may begin after that: others have written since, and for whoever asked nobody is there any more.
 */
export class GuestConnection extends PassThroughDevice {
  readonly revoked: Promise<string>
  readonly #device: GuestDevice
  readonly #waiting = new Set<(error: XosanError) => void>()
  #revoke!: (reason: string) => void
  /** Why it was broken off; null until then. */
  #over: XosanError | null = null

  constructor(device: GuestDevice) {
    super(device)
    this.#device = device
    this.revoked = new Promise(resolve => (this.#revoke = resolve))
  }

  /** Ends the connection first and its requests after it: none of them may be answered with an error. */
  breakOff(reason: string): void {
    this.#revoke(reason)
    const error = new XosanError('EXPORT_REFUSED', { host: 'This host', name: '', reason })
    this.#over = error
    for (const fail of this.#waiting) fail(error)
    this.#waiting.clear()
  }

  override read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    return this.#ask(device => device.read(offset, into))
  }

  override readAtOnce(offset: ByteOffset, into: Uint8Array): boolean {
    return this.#over === null && this.#device.current?.readAtOnce(offset, into) === true
  }

  override write(request: WriteRequest): Promise<void> {
    return this.#ask(device => device.write(request))
  }

  override zero(request: ZeroRequest): Promise<void> {
    return this.#ask(device => device.zero(request))
  }

  override trim(request: TrimRequest): Promise<void> {
    return this.#ask(device => device.trim(request))
  }

  override flush(): Promise<void> {
    return this.#ask(device => device.flush())
  }

  override allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    return this.#ask(device => device.allocation(offset, length))
  }

  #ask<Result>(request: (device: MirrorDevice) => Promise<Result>): Promise<Result> {
    if (this.#over !== null) return Promise.reject(this.#over)
    const { current } = this.#device
    return this.#until(current === null ? this.#later(request) : request(current))
  }

  async #later<Result>(request: (device: MirrorDevice) => Promise<Result>): Promise<Result> {
    const device = await this.#device.serving()
    if (this.#over !== null) throw this.#over
    return request(device)
  }

  #until<Result>(done: Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      this.#waiting.add(reject)
      done.then(
        result => {
          this.#waiting.delete(reject)
          resolve(result)
        },
        (error: unknown) => {
          this.#waiting.delete(reject)
          // What the device rejected with goes on as it is.
          // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
          reject(error)
        }
      )
    })
  }
}
