import { NbdRig } from '../../support/nbd-rig.ts'
import { FOREIGN_CLIENTS } from './foreign-clients.ts'

describe('the NBD server is usable by', function () {
  this.timeout(90_000)
  let rig: NbdRig

  beforeEach(async () => {
    rig = await NbdRig.start()
  })

  afterEach(() => rig.stop())

  for (const client of FOREIGN_CLIENTS) {
    const missing = client.missing()
    if (missing !== null) {
      it.skip(`${client.name} [skipped: ${missing}]`)
    } else {
      it(client.name, async () => {
        await client.run(rig)
      })
    }
  }
})
