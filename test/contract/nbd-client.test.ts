import { MemoryDevice } from '../support/memory-device.ts'
import { NbdRig } from '../support/nbd-rig.ts'
import { blockDeviceContract } from './block-device.ts'

blockDeviceContract('NbdClient over a unix socket', async size => {
  const rig = await NbdRig.start({ device: new MemoryDevice(size) })
  return { device: await rig.connect(), dispose: () => rig.stop() }
})

blockDeviceContract('NbdClient over TCP with little room for requests under way', async size => {
  const rig = await NbdRig.start({
    device: new MemoryDevice(size),
    limits: { connectionBytesMax: 100_000, requestsInFlightMax: 4 },
  })
  const address = { host: '127.0.0.1', port: rig.port }
  return { device: await rig.connect({ address, bytesInFlightMax: 50_000 }), dispose: () => rig.stop() }
})

blockDeviceContract('NbdClient in a sequenced session', async size => {
  const device = new MemoryDevice(size, { capabilities: { sequenced: true } })
  const rig = await NbdRig.start({ device, durability: 'as-asked' })
  return { device: await rig.connect({ sequenced: true }), dispose: () => rig.stop() }
})
