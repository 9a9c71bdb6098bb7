import assert from 'node:assert/strict'
import { GroupCommit } from '../../../datapath/replica-local/group-commit.ts'

/** Rounds that end when they are told to. */
class Rounds {
  begun = 0
  readonly #ends: { resolve: () => void; reject: (error: Error) => void }[] = []
  readonly round = (): Promise<void> => {
    this.begun += 1
    return new Promise((resolve, reject) => this.#ends.push({ resolve, reject }))
  }
  succeed = (): void => this.#ends.shift()!.resolve()
  fail = (error: Error): void => this.#ends.shift()!.reject(error)
}

describe('a group commit', () => {
  it('gives all who come during a round the next one, together', async () => {
    const rounds = new Rounds()
    const group = new GroupCommit(rounds.round)
    const first = group.commit()
    const followers = [group.commit(), group.commit(), group.commit()]
    assert.equal(rounds.begun, 1)
    rounds.succeed()
    await first
    await Promise.resolve()
    assert.equal(rounds.begun, 2)
    rounds.succeed()
    await Promise.all(followers)
    assert.equal(rounds.begun, 2)
  })

  it('never runs two rounds at once, whoever comes at the moment when one ends', async () => {
    let running = 0
    const group = new GroupCommit(async () => {
      running += 1
      assert.equal(running, 1)
      await Promise.resolve()
      running -= 1
    })
    const comers: Promise<void>[] = []
    for (let at = 0; at < 200; at += 1) {
      comers.push(group.commit())
      // At every possible distance, counted in microtasks, from the end of a round.
      for (let wait = 0; wait < at % 7; wait += 1) await Promise.resolve()
    }
    await Promise.all(comers)
  })

  it('tells exactly those who shared a failed round, and goes on with the next', async () => {
    const rounds = new Rounds()
    const group = new GroupCommit(rounds.round)
    const first = group.commit()
    const second = group.commit()
    rounds.fail(new Error('first'))
    await assert.rejects(first, /first/)
    await Promise.resolve()
    rounds.succeed()
    await second
    const third = group.commit()
    rounds.succeed()
    await third
  })
})
