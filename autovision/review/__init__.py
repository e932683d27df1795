"""What people should look at next, and what their answers become.

judged    labelled images, with out-of-sample probabilities     -> which labels are probably wrong
queue     captures and data set, with those                      -> what is most worth looking at
folder    the queue as files, to be filled in                    -> and read back
"""
