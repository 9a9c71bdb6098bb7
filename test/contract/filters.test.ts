import { byteLength } from '../../core/units.ts'
import { BoundsFilter } from '../../datapath/filters/bounds/bounds.ts'
import { ThrottleFilter } from '../../datapath/filters/throttle/throttle.ts'
import { MemoryDevice } from '../support/memory-device.ts'
import { blockDeviceContract } from './block-device.ts'

blockDeviceContract('BoundsFilter', async size => ({ device: new BoundsFilter(new MemoryDevice(size)) }))
blockDeviceContract('ThrottleFilter', async size => ({
  device: new ThrottleFilter(new MemoryDevice(size), byteLength(32_768)),
}))
