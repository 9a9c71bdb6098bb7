import { type AcceptAnswer, type AcceptRequest } from '../../core/mirror/messages.ts'
import { ANSWER_SHARE_OF_CALL, type MirrorTiming } from '../../core/mirror/timing.ts'
import { type Clock } from '../../core/ports/clock.ts'
import { millis, type VolumeKey } from '../../core/units.ts'

/**
 * Requests for epochs of one volume that are carried out or wait for that. There are several when contenders came to
 * nothing while a disk was busy; whoever comes beyond them asks again.
 */
const UNDER_WAY_MAX = 8

type Answer = () => Promise<AcceptAnswer>

/**
 * Requests for epochs that the replicas of this process carry out.
 *
 * To accept, a replica may have to bring gigabytes of written pages to its disk, and whoever asked waits a second or
 * two for an answer. So a request goes on to its end whether or not somebody waits for it; who waits is told in time that it
 * is under way; and who asks the same again joins it.
 */
export class Admissions {
  readonly #clock: Clock
  readonly #timing: MirrorTiming
  readonly #underWay = new Map<VolumeKey, Map<string, Promise<AcceptAnswer>>>()

  constructor(clock: Clock, timing: MirrorTiming) {
    this.#clock = clock
    this.#timing = timing
  }

  /**
   * Carries out a request, or joins the same one that is under way.
   * @param preparing what is answered when it takes longer than an answer may
   */
  async answer(
    request: AcceptRequest,
    carryOut: Answer,
    preparing: () => AcceptAnswer
  ): Promise<AcceptAnswer> {
    const { volume } = request.address
    const underWay = this.#underWay.get(volume) ?? new Map<string, Promise<AcceptAnswer>>()
    this.#underWay.set(volume, underWay)
    const name = nameOf(request)
    let admission = underWay.get(name)
    if (admission === undefined) {
      if (underWay.size >= UNDER_WAY_MAX) return preparing()
      admission = carryOut().finally(() => {
        underWay.delete(name)
        if (underWay.size === 0) this.#underWay.delete(volume)
      })
      underWay.set(name, admission)
    }
    return this.#inTime(admission, preparing)
  }

  async #inTime(admission: Promise<AcceptAnswer>, preparing: () => AcceptAnswer): Promise<AcceptAnswer> {
    return new Promise((resolve, reject) => {
      const patienceMs = millis(this.#timing.callTimeoutMs * ANSWER_SHARE_OF_CALL)
      const timer = this.#clock.after(patienceMs, () => resolve(preparing()))
      admission.finally(() => timer.cancel()).then(resolve, reject)
    })
  }
}

/** Requests of one name are one request: only how long it has been under way may differ. */
const nameOf = ({ address, epoch, asker, purpose, inSync, voidUpTo }: AcceptRequest): string =>
  JSON.stringify([address, epoch, asker.incarnation, purpose, inSync, voidUpTo])
