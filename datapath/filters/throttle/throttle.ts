import { type ByteLength, type ByteOffset } from '../../../core/units.ts'
import {
  type BlockDevice,
  type Extent,
  type TrimRequest,
  type WriteRequest,
  type ZeroRequest,
} from '../../block-device.ts'
import { PassThroughDevice } from '../pass-through.ts'

interface Waiting {
  readonly cost: number
  readonly start: () => void
}

/** Bounds the bytes that are under way to the device below; further calls wait in order. See README.md beside. */
export class ThrottleFilter extends PassThroughDevice {
  readonly #bytesInFlightMax: number
  readonly #waiting: Waiting[] = []
  #bytesInFlight = 0
  #callsInFlight = 0

  /** @param bytesInFlightMax a single call that is larger runs alone */
  constructor(next: BlockDevice, bytesInFlightMax: ByteLength) {
    super(next)
    this.#bytesInFlightMax = bytesInFlightMax
  }

  /** Calls that wait for room: the back-pressure as a value. */
  get waiting(): number {
    return this.#waiting.length
  }

  override read(offset: ByteOffset, into: Uint8Array): Promise<Uint8Array> {
    return this.#run(into.length, () => super.read(offset, into))
  }

  override write(request: WriteRequest): Promise<void> {
    return this.#run(request.data.length, () => super.write(request))
  }

  override zero(request: ZeroRequest): Promise<void> {
    return this.#run(0, () => super.zero(request))
  }

  override trim(request: TrimRequest): Promise<void> {
    return this.#run(0, () => super.trim(request))
  }

  override flush(): Promise<void> {
    return this.#run(0, () => super.flush())
  }

  override allocation(offset: ByteOffset, length: ByteLength): Promise<Extent[]> {
    return this.#run(0, () => super.allocation(offset, length))
  }

  async #run<T>(cost: number, call: () => Promise<T>): Promise<T> {
    // What has room still queues behind what has none: sequenced changes must reach the device in order.
    if (this.#waiting.length > 0 || !this.#hasRoom(cost)) {
      await new Promise<void>(start => this.#waiting.push({ cost, start: () => this.#begin(cost, start) }))
    } else {
      this.#begin(cost)
    }
    try {
      return await call()
    } finally {
      this.#callsInFlight--
      this.#bytesInFlight -= cost
      while (this.#waiting.length > 0 && this.#hasRoom(this.#waiting[0]!.cost)) this.#waiting.shift()!.start()
    }
  }

  /** Books a call, now and not when its promise continues: else the next one would take the same room. */
  #begin(cost: number, start?: () => void): void {
    this.#callsInFlight++
    this.#bytesInFlight += cost
    start?.()
  }

  #hasRoom(cost: number): boolean {
    return this.#callsInFlight === 0 || this.#bytesInFlight + cost <= this.#bytesInFlightMax
  }
}
