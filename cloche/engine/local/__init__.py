"""The engine of one machine (`engine.LocalEngine`): gangs under supervisors, in sandboxes."""
