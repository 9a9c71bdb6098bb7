import { PassThroughDevice } from '../../datapath/filters/pass-through.ts'
import { MemoryDevice } from '../support/memory-device.ts'
import { blockDeviceContract } from './block-device.ts'

blockDeviceContract('MemoryDevice', async size => ({ device: new MemoryDevice(size) }))
blockDeviceContract('PassThroughDevice', async size => ({
  device: new PassThroughDevice(new MemoryDevice(size)),
}))
