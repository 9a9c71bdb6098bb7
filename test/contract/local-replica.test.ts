import { ReplicaHost } from '../support/replica-on-simulated-disk.ts'
import { blockDeviceContract } from './block-device.ts'

blockDeviceContract('LocalReplica', async size => {
  const host = new ReplicaHost(1, size)
  await host.start()
  return { device: host.replica }
})
